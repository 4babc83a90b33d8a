"""Plan in, observation out: a robot or simulator on topics, in lock-step or in real time."""

from __future__ import annotations

import sys
import threading
import time
from collections import deque
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from rclpy.duration import Duration
from std_msgs.msg import Header, UInt64
from std_srvs.srv import SetBool, Trigger

from wm_nodes import messages, spin, topics
from wm_nodes.cores.cadence import SWITCH_S, Cadence
from wm_nodes.cores.plans import check_plan, due_action
from wm_nodes.cores.records import Origin, Plan, Vector
from wm_nodes.cores.schedule import Goals, Progress, Schedule
from wm_nodes.cores.session import Arrival, Session
from wm_nodes.errors import MessageError, user_errors
from wm_nodes.nodes.shell import Shell, ShellParams
from wm_nodes.params import param
from wm_nodes.robots.adapters import open_robot, takes
from wm_nodes.robots.base import Robot, RobotError
from wm_nodes.robots.limits import read_limits
from wm_nodes.share import shared

READY, ACTING, ENDING = "ready", "acting", "ending"  # phases of the control loop
KEEP = 4096  # newest latencies
REST_S = 3.0  # patience for coming to rest at the end
HOLD = Origin("robot", "hold")  # no demonstration: nobody is to imitate standing still
TICK_S = 0.05
MADE = 512  # newest observations whose plans are still known by
ACK = Duration(seconds=1.0)


@dataclass(frozen=True)
class RobotParams(ShellParams):
    adapter: str = param("metaworld", "Robot: metaworld, or module:Class of your own.")
    task: str = param("drawer-close-v3", "Task of the robot.")
    seed: int = param(0, "Seed of all episodes.", low=0, high=2**31 - 1)
    mode: str = param(
        "lockstep", "lockstep: wait for each plan; realtime: never.", choices=topics.MODES
    )
    episodes: int = param(0, "End after this many episodes; 0: never.", low=0)
    steps: int = param(0, "End after this many simulator steps; 0: never.", low=0)
    evaluate: bool = param(False, "Only evaluation episodes (explore=0).")
    eval_every: int = param(0, "Decisions between evaluation blocks; 0: none.", low=0)
    eval_episodes: int = param(20, "Episodes of an evaluation block.", low=1)
    action_repeat: int = param(2, "Simulator steps per decision.", low=1, high=20)
    time_limit: int = param(250, "Decisions per episode.", low=1)
    render: str = param("auto", "Pictures.", choices=("auto", "fast", "full"))
    camera: str = param("corner4", "Camera of the simulator.")
    size: int = param(64, "Side of the pictures, in pixels.", low=8, high=1024)
    limits: str = param("", "YAML of action limits; empty: config/robots/<adapter>.yaml.")
    progress: str = param("", "File that keeps the counts, so that a restart goes on; empty: none.")
    retry_s: float = param(
        0.5, "Lock-step: publish an unanswered observation again after.", low=0.01
    )
    timeout_s: float = param(30.0, "Lock-step: report a plan as missing after.", low=0.1)
    await_recorder_s: float = param(
        0.0, "Lock-step: wait so long for the recorder at an episode's start; 0: do not.", low=0.0
    )
    pace_hz: float = param(
        0.0, "Lock-step: at most so many decisions a second; 0: no limit.", low=0.0
    )
    ahead: int = param(
        0, "Lock-step: go at most so many decisions ahead of the trainer; 0: no limit.", low=0
    )
    rate_hz: float = param(
        0.0, "Real time: control rate; 0: the robot's own.", low=0.0, high=1000.0
    )
    await_planner_s: float = param(
        0.0, "Real time: wait so long for somebody who plans before an episode; 0: do not.", low=0.0
    )
    robot: str = param("arm_sim", "Adapter arm: a name of config/robots, or the path of a YAML.")
    dry_run: bool = param(False, "Adapter arm: do everything but command.")
    home: bool = param(True, "Adapter arm: go to the home pose before each episode.")
    max_age_s: float = param(
        0.25, "Real time: hold when a plan's last action is overdue by so much.", low=0.0
    )


class RobotNode(Shell):
    """The only node that moves anything. What it publishes of one observation has one stamp."""

    NAME = "robot"
    PARAMS = RobotParams
    session: Session
    _robot: Robot
    _told: set[str]

    def configure(self) -> None:
        p = self.params
        with user_errors(RobotError, ValueError):
            self._progress = Progress(p.progress)
            counts = self._progress.load()
            self._robot = open_robot(p.adapter, self._settings())
        goals = Goals(p.episodes, p.steps, p.eval_every, p.eval_episodes, p.evaluate)
        clock = self._clock_ns if p.mode == topics.REALTIME else None
        self.session = Session(self._robot, Schedule(goals, p.seed, counts), clock)
        self._spec = self._robot.spec
        self._bounds = (self._spec.action.low, self._spec.action.high)
        self._plan: Plan | None = None
        self._waiting = False
        self._paused = self._stopped = False
        self._recorded_ns = -1
        self._kept_up: int | None = None
        self._published_at = self._first_at = self._spoke_at = 0.0
        self._clipped = 0
        self._told = set()
        self._cadence: Cadence | None = None
        self._seen_at: dict[int, tuple[float, float]] = {}
        self._plan_made = (0.0, 0.0)
        self._make_topics()

    def activate(self) -> None:
        self._said.publish(messages.spec_to_msg(self._spec.log_spec()))
        self.health.ready = True
        if self._robot.tick_s:
            self._start_ticking()
            return
        self._start()
        realtime = self.params.mode == topics.REALTIME
        period = 1.0 / self.params.rate_hz if self.params.rate_hz else self._spec.control_period_s
        self._timer = self.create_timer(
            period if realtime else TICK_S, self._control if realtime else self._watch
        )

    def deactivate(self) -> None:
        if self._cadence is not None:
            self._stop_ticking()
        else:
            self.destroy_timer(self._timer)
        self._robot.stop()
        self._progress.save(self.session.counts)

    def cleanup(self) -> None:
        if hasattr(self, "_robot"):
            self._robot.close()
            del self._robot

    # Making -------------------------------------------------------------------------------------

    def _settings(self) -> dict[str, object]:
        p = self.params
        names = "task seed action_repeat time_limit render camera size dry_run home".split()
        settings = {name: getattr(p, name) for name in names}
        if takes(p.adapter, "bus"):
            settings |= self._wires()
        if takes(p.adapter, "limits"):
            path = Path(p.limits) if p.limits else shared(f"config/robots/{p.adapter}.yaml")
            settings["limits"] = read_limits(path)
        return settings

    def _wires(self) -> dict[str, object]:
        """Return an arm's configuration and its topics."""
        from wm_nodes.arm_bus import RosBus
        from wm_nodes.robots.arm.config import find_config, read_config

        if self.params.mode != topics.REALTIME:
            raise RobotError("mode: an arm does not wait. Right: mode:=realtime.")
        config = read_config(find_config(self.params.robot))
        if self.params.rate_hz:
            config = replace(config, rate_hz=self.params.rate_hz)
        return {"config": config, "bus": RosBus(self, config)}

    def _make_topics(self) -> None:
        self._images = {c: topics.IMAGE_RAW.publisher(self, camera=c) for c in self._spec.cameras}
        self._depths = {d: topics.IMAGE_RAW.publisher(self, camera=d) for d in self._spec.depths}
        self._joints = topics.JOINT_STATES.publisher(self)
        self._steps = topics.STEPS.publisher(self)
        self._said = topics.SPEC.publisher(self)
        late = topics.SubscriptionEventCallbacks(
            deadline=lambda info: self.health.faults.update(("plan-deadline",))
        )
        events = late if self.params.mode == topics.REALTIME else None
        self.listen(topics.PLAN, messages.plan_from_msg, self._on_plan, events=events)
        self.listen(topics.RECORDED, lambda msg: msg, self._on_recorded)
        if self.params.ahead and self.params.mode == topics.LOCKSTEP:
            self.listen(topics.PACE, lambda msg: msg, self._on_pace)
        self.create_service(Trigger, "reset", self._on_reset)
        self.create_service(SetBool, "pause", self._on_pause)
        self.create_service(SetBool, "estop", self._on_estop)
        self.create_service(SetBool, "success", self._on_success)

    # Both modes ---------------------------------------------------------------------------------

    def _start(self) -> None:
        """Begin the next episode, or end the run."""
        self._plan = None
        self._progress.save(self.session.counts)
        arrival = self.session.begin()
        if arrival is None:
            self._end_run()
            return
        self._began_ns = arrival.step.stamp_ns
        self._publish(arrival)

    def _end_run(self) -> None:
        self._waiting = False
        self.health.facts["done"] = "true"
        if self._cadence is None:
            self._robot.stop()
        for publisher in (self._steps, *self._images.values(), *self._depths.values()):
            publisher.wait_for_all_acked(ACK)
        self.get_logger().info("the run is over")
        self.finish()

    def _clock_ns(self) -> int:
        return self.get_clock().now().nanoseconds

    def _publish(self, arrival: Arrival, again: bool = False) -> None:
        """Publish an observation; what a decision waits for goes first."""
        now, stamp = time.perf_counter(), arrival.step.stamp_ns
        self._note(stamp)
        self._steps.publish(messages.step_to_msg(arrival.step))
        for camera, image in arrival.images.items():
            self._images[camera].publish(messages.image_to_msg(image, stamp, camera))
        for name, depth in arrival.depths.items():
            self._depths[name].publish(messages.depth_to_msg(depth, stamp, name))
        if len(arrival.proprio):
            names = self._spec.proprio.names
            self._joints.publish(messages.joints_to_msg(names, arrival.proprio, stamp))
        self._published_at = now
        if not again:
            self._first_at = self._spoke_at = now
            self._waiting = not arrival.step.is_last

    def _note(self, stamp_ns: int) -> None:
        """Remember when an observation was made, by the steady clock, and how old its pictures."""
        if self.params.mode == topics.REALTIME:
            self._seen_at[stamp_ns] = time.monotonic(), self._robot.picture_age_s()
            while len(self._seen_at) > MADE:
                del self._seen_at[next(iter(self._seen_at))]

    def _execute(self, action: Vector, origin: Origin) -> None:
        arrival = self.session.execute(action, origin)
        self._count(arrival)
        self._publish(arrival)
        if arrival.step.is_last:
            self._start()

    def _count(self, arrival: Arrival) -> None:
        step, counts = arrival.step, self.session.counts
        self._clipped += bool((step.executed != step.commanded).any())
        self.health.facts.update(
            steps=counts.steps,
            decisions=counts.decisions,
            episodes=counts.episodes,
            eval_episodes=counts.eval_episodes,
            clipped=self._clipped,
        )

    def _on_plan(self, plan: Plan) -> None:
        try:
            plan = check_plan(plan, self._spec.action)
        except MessageError as error:
            self.drop(f"plan/{error.reason}", str(error))
            return
        if self.params.mode == topics.LOCKSTEP:
            self._on_lockstep_plan(plan)
        else:
            self._on_realtime_plan(plan)

    # Lock-step ----------------------------------------------------------------------------------

    def _on_lockstep_plan(self, plan: Plan) -> None:
        """The plan's arrival moves the simulator: the newest observation waits for nothing else."""
        now = self.session.now
        if now is None or plan.stamp_ns != now.step.stamp_ns:
            self.health.drop("plan/stamp")
            return
        if not self._waiting:
            return
        self.well("plan", "plans are back")
        if self._plan is None:
            self.health.worked(time.perf_counter() - self._first_at)
            self._plan = plan
        self._go()

    def _go(self) -> None:
        """Execute the plan at hand, unless something holds it back; the timer tries again."""
        if self._plan is None or self._paused or self._stopped or self._held_back():
            return
        plan, self._plan = self._plan, None
        self._execute(plan.actions[0], plan.origin)

    def _held_back(self) -> bool:
        since = time.perf_counter() - self._first_at
        pace = self.params.pace_hz
        if (pace and since < 1.0 / pace) or self._ahead():
            return True
        return not self._recorder_there(since)

    def _ahead(self) -> bool:
        """Has the robot done more than learning can keep up with? Not if nobody learns."""
        ahead, now = self.params.ahead, self.session.now
        if not (ahead and now and now.step.explore) or self._kept_up is None:
            return False
        over = self.session.counts.decisions > self._kept_up + ahead
        return over and self.count_publishers(topics.PACE.name) > 0

    def _recorder_there(self, since: float) -> bool:
        """At an episode's start, has the recorder joined the observation? Waits only once."""
        now, patience = self.session.now, self.params.await_recorder_s
        if not patience or not now or not now.step.is_first:
            return True
        if self._recorded_ns >= now.step.stamp_ns:
            return True
        if since < patience and "recorder" not in self.health.lasting:
            return False
        self.fault("recorder", "the recorder does not answer: going on unrecorded")
        return True

    def _watch(self) -> None:
        """Say an unanswered observation again; go on when what held a plan back has gone."""
        if not self._waiting or self._paused or self._stopped:
            return
        now = time.perf_counter()
        if self._plan is not None:
            self._go()
        arrival = self.session.now
        if self._waiting and arrival and now - self._published_at >= self.params.retry_s:
            self._publish(arrival, again=True)
        if self._plan is None and now - self._spoke_at >= self.params.timeout_s:
            self._spoke_at = now
            self.health.faults["plan"] += 1
            self.fault("plan", f"no plan for {now - self._first_at:.0f} s; still asking")

    def _on_pace(self, msg: UInt64) -> None:
        self._kept_up = msg.data
        if self._waiting:
            self._go()

    def _on_recorded(self, msg: Header) -> None:
        self._recorded_ns = messages.from_time(msg.stamp)
        self.well("recorder", "the recorder answers")
        if self.params.mode == topics.LOCKSTEP and self._waiting:
            self._go()

    # Real time ----------------------------------------------------------------------------------

    def _control(self) -> None:
        """Every period: the action whose time has come, or hold still."""
        if self.session.now is not None and not self.over.done():
            self._execute(*self._due_now())

    def _on_realtime_plan(self, plan: Plan) -> None:
        """Keep the newest plan of this episode, unless it claims to come from the future."""
        age_s = (self._clock_ns() - plan.stamp_ns) / 1e9
        newest = self._began_ns if self._plan is None else self._plan.stamp_ns
        if plan.stamp_ns < newest or age_s < 0:
            self.health.drop("plan/stamp")
            return
        now_s = time.monotonic()
        made_s, picture_s = self._seen_at.get(plan.stamp_ns, (now_s - age_s, 0.0))
        self._plan_made = made_s, picture_s
        self._plan = plan
        self.health.worked(now_s - made_s)

    def _due_now(self) -> tuple[Vector, Origin]:
        hold = np.clip(np.zeros(len(self._spec.action)), *self._bounds).astype(np.float32)
        if self._stopped or self._paused:
            return hold, HOLD
        if self._plan is None:
            self.fault("plan", "no plan yet: holding")
            return hold, HOLD
        age_s = time.monotonic() - self._plan_made[0]  # steady: nobody can set this clock
        now = self._plan.stamp_ns + round(age_s * 1e9)
        action, overdue = due_action(self._plan, now, self._spec.control_period_s)
        if overdue > self.params.max_age_s:
            self.fault("plan", "the plan is stale: holding")
            return hold, HOLD
        self.well("plan", "plans are back")
        return action, self._plan.origin

    # Real time, with a control period of the robot's own ----------------------------------------

    def _start_ticking(self) -> None:
        """Begin the control loop in a thread of its own: what the executor does is no delay."""
        sys.setswitchinterval(SWITCH_S)
        self._lock = threading.Lock()
        self._phase, self._settled = READY, False
        self._ready_at = time.monotonic()
        self._origin = HOLD
        self._ages: deque[float] = deque(maxlen=KEEP)
        self._bell = self.create_guard_condition(self._on_bell)
        if not self.session.prepare():
            self._end_run()
            return
        self._cadence = Cadence(self._robot.tick_s, self._tick, alone=self.alone)
        self._cadence.start()
        self._timer = self.create_timer(TICK_S, self._look)

    def _stop_ticking(self) -> None:
        """Come to rest while the loop still beats, then end it."""
        self._phase = ENDING
        end = time.monotonic() + REST_S
        while time.monotonic() < end and self._robot.facts().get("moving") == "true":
            time.sleep(self._robot.tick_s)
        assert self._cadence is not None
        self._cadence.stop()
        self._cadence = None
        self.destroy_timer(self._timer)
        self.destroy_guard_condition(self._bell)

    def _tick(self) -> None:
        """One control period, in the control thread."""
        if self._phase == READY:
            with self._lock:
                self._settled = self._robot.settle()
            if self._settled:
                self._bell.trigger()
            return
        due = self._due_now() if self._phase == ACTING else (None, HOLD)
        action, origin = due if due[1] is not HOLD else (None, HOLD)
        made_s, picture_s = self._plan_made
        age_s = time.monotonic() - made_s + picture_s if action is not None else 0.0
        with self._lock:
            whole = self._robot.tick(action, made_s, age_s)
        if action is not None:
            self._ages.append(age_s)
        if whole:
            self._bell.trigger()
        self._origin = origin

    def _on_bell(self) -> None:
        """A decision is whole, or the robot is ready for an episode: say what is seen."""
        if not self.active or self.over.done():
            return
        if self._phase == READY:
            if not self._settled or not self._planner_there():
                return
            with self._lock:
                self._settled, self._plan = False, None
                arrival = self.session.begin()
            if arrival is not None:
                self._began_ns = arrival.step.stamp_ns
                self._phase = ACTING
                self._publish(arrival)
            return
        if self._phase != ACTING:
            return
        hold = np.clip(np.zeros(len(self._spec.action)), *self._bounds).astype(np.float32)
        with self._lock:
            arrival = self.session.execute(hold, self._origin)
        self._count(arrival)
        self._publish(arrival)
        if arrival.step.is_last:
            self._next_episode()

    def _planner_there(self) -> bool:
        """Does somebody plan, or was that waited for long enough?"""
        waited = time.monotonic() - self._ready_at
        if waited >= self.params.await_planner_s:
            return True
        return self.count_publishers(topics.PLAN.name) > 0

    def _next_episode(self) -> None:
        self._progress.save(self.session.counts)
        self._plan = None
        if self.session.prepare():
            self._phase, self._ready_at = READY, time.monotonic()
        else:
            self._phase = ENDING
            self._end_run()

    def _look(self) -> None:
        """Report what is wrong with the robot, and how evenly the loop beats."""
        cadence = self._cadence
        if cadence is None:
            return
        if cadence.error is not None:
            raise cadence.error
        now = self._robot.faults()
        for name in [name for name in self._told if name not in now]:
            self._told.discard(name)
            self.well(name, f"over: {name}")
        for name, text in now.items():
            if name != "plan" or self._phase == ACTING:
                self._told.add(name)
                self.fault(name, text)
        self.health.facts.update(self._robot.facts())
        self.health.facts.update(cadence.figures())
        if self._ages:
            p50, p99 = np.percentile(self._ages, (50, 99)) * 1e3
            self.health.facts.update(camera_to_command_p50_ms=f"{p50:.1f}")
            self.health.facts.update(camera_to_command_p99_ms=f"{p99:.1f}")

    # Services -----------------------------------------------------------------------------------

    def _estop(self, on: bool) -> None:
        if self._cadence is None:
            self._robot.estop(on)
            return
        with self._lock:
            self._robot.estop(on)

    def _on_reset(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        if not self.active or self._stopped:
            response.message = "not active, or stopped by estop: nothing was reset"
            return response
        self.session.abandon()
        self._start()
        response.success = True
        return response

    def _on_pause(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        self._paused = request.data
        response.success, response.message = True, "paused" if request.data else "going on"
        return response

    def _on_estop(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        """Latch: nothing is executed until a person says false."""
        self._stopped = request.data
        if request.data:
            self._estop(True)
            self._plan = None
            self.fault("estop", "emergency stop: holding until it is cleared")
        else:
            self._estop(False)
            self.health.cleared("estop")
        response.success, response.message = True, "stopped" if request.data else "cleared"
        return response

    def _on_success(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        self.session.label = request.data
        response.success, response.message = True, "the next step carries it"
        return response


def main() -> None:
    spin.main(RobotNode)


if __name__ == "__main__":
    main()
