"""Plan in, observation out: a robot or simulator on topics, in lock-step or in real time."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from rcl_interfaces.msg import SetParametersResult
from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.parameter import Parameter
from std_msgs.msg import Header, UInt64
from std_srvs.srv import SetBool, Trigger

from wm_nodes.control.active_plan import ActivePlan
from wm_nodes.control.plans import check_plan
from wm_nodes.control.realtime import HOLD
from wm_nodes.episodes.runner import Arrival, Session
from wm_nodes.episodes.schedule import Goals, Progress, Schedule
from wm_nodes.errors import MessageError, user_errors
from wm_nodes.nodes.realtime_robot import RealtimeControl
from wm_nodes.records import Origin, Plan, Vector
from wm_nodes.robots.opening import limits_of, open_robot, takes
from wm_nodes.robots.robot import RealtimeRobot, Robot, RobotError
from wm_nodes.ros import messages, spin, topics
from wm_nodes.ros.camera_info import CameraInfos, DriverViews, SimulatedViews, Views
from wm_nodes.ros.clock import ClockPublisher
from wm_nodes.ros.node import Shell, ShellParams
from wm_nodes.ros.parameters import param

if TYPE_CHECKING:
    from wm_nodes.nodes.driver_services import DriverServices

TICK_S = 0.05
ACK = Duration(seconds=1.0)


@dataclass(frozen=True)
class RobotParams(ShellParams):
    adapter: str = param(
        "metaworld", "Robot: a shipped one, or your own as module:Class or FILE.py:Class."
    )
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
    limits: str = param(
        "", "YAML of action limits; empty: config/robots/<adapter>.yaml, or an own class's default."
    )
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
        0.0,
        "Real time: seconds to wait for a planner before an episode starts; 0: do not wait.",
        low=0.0,
    )
    robot: str = param("arm_sim", "Adapter arm: a name of config/robots, or the path of a YAML.")
    driver_ns: str = param(
        "",
        "Adapter arm: its driver's namespace, for relative names of its YAML; empty: the YAML's.",
    )
    dry_run: bool = param(False, "Adapter arm: do everything but command.")
    home: bool = param(True, "Adapter arm: go to the home pose before each episode.")
    confirm_home: bool = param(
        False, "Adapter arm: go home only when the operator calls go_home, each time."
    )
    safety_file: str = param(
        "",
        "Adapter arm: file that keeps latches over restarts; empty: one for each robot, in "
        "$XDG_STATE_HOME/wm_nodes/robots.",
    )
    require_realtime: bool = param(
        False, "Adapter arm: do not start without real-time priority and locked memory."
    )
    tf: str = param(
        "auto",
        "Adapter arm: publish /tf; auto: unless another node publishes a robot_description.",
        choices=topics.TF_CHOICES,
    )
    frame_prefix: str = param("", "Put before the names of all frames.")
    link_rate_hz: float = param(
        50.0, "Adapter arm: at most so many transforms of links a second.", low=0.1, high=50.0
    )
    speed_scale: float = param(
        1.0,
        "Adapter arm: all speeds stay below this share of their limits.",
        low=0.05,
        high=1.0,
        live=True,
    )
    max_age_s: float = param(
        0.25, "Real time: hold when a plan's last action is overdue by so much.", low=0.0
    )
    max_plan_s: float = param(
        2.0,
        "Real time: no plan is followed longer than so many seconds after its observation.",
        low=0.01,
        high=60.0,
    )


class RobotNode(Shell):
    """The only node that moves anything. What it publishes of one observation has one stamp."""

    NAME = "robot"
    TAKES_OVER = True
    PARAMS = RobotParams
    FINISHES = True  # a second signal does not interrupt coming to rest
    session: Session
    _robot: Robot

    def configure(self) -> None:
        p = self.params
        with user_errors(RobotError, ValueError):
            self._progress = Progress(p.progress)
            counts = self._progress.load()
            settings = self._settings()
            try:
                self._robot = open_robot(p.adapter, settings)
            except BaseException:
                if "driver" in settings:
                    settings["driver"].close()
                raise
        goals = Goals(p.episodes, p.steps, p.eval_every, p.eval_episodes, p.evaluate)
        self._clock_out: ClockPublisher | None = None  # of a simulator that makes the time
        if not isinstance(self._robot, RealtimeRobot):
            self._clock_out = ClockPublisher(self)
        makes_time = self._clock_out is not None and self._clock_out.on
        clock = self._clock_ns if p.mode == topics.REALTIME and not makes_time else None
        self.session = Session(self._robot, Schedule(goals, p.seed, counts), clock)
        self._spec = self._robot.spec
        self._plan: Plan | None = None  # lock-step: the answer to the newest observation
        self._active_plan = ActivePlan(self._spec.control_period_s, p.max_age_s, p.max_plan_s)
        self._waiting = False
        self._paused = self._stopped = False
        self._recorded_ns = -1
        self._kept_up: int | None = None
        self._published_at = self._first_at = self._spoke_at = 0.0
        self._clipped = 0
        self.control: RealtimeControl | None = None
        self._driver_services: DriverServices | None = None
        self._make_topics()
        self.add_on_set_parameters_callback(self._on_parameters)

    def activate(self) -> None:
        self._spec_pub.publish(messages.spec_to_msg(self._spec.log_spec()))
        self.health.ready = True
        if self.control is not None:
            self.control.start()
            return
        self._start()
        realtime = self.params.mode == topics.REALTIME
        period = 1.0 / self.params.rate_hz if self.params.rate_hz else self._spec.control_period_s
        self._timer = self.create_timer(
            period if realtime else TICK_S, self._step_realtime if realtime else self._watch
        )

    def deactivate(self) -> None:
        if self.control is not None:
            self.control.stop()
        else:
            self.destroy_timer(self._timer)
            self._robot.stop()
        self.save()

    def cleanup(self) -> None:
        if hasattr(self, "_description"):
            self._description.close()
            del self._description
        if hasattr(self, "_driver_services"):
            if self._driver_services is not None:
                self._driver_services.close()
            del self._driver_services
        if hasattr(self, "_robot"):
            self._robot.close()
            del self._robot

    # Making -------------------------------------------------------------------------------------

    def _settings(self) -> dict[str, Any]:
        p = self.params
        names = "task seed action_repeat time_limit render camera size dry_run home".split()
        settings = {name: getattr(p, name) for name in names}
        self.commands: Any = self
        self._views: Views | None = None  # of cameras; None: the robot knows them itself
        if takes(p.adapter, "driver"):
            settings |= self._arm_topics()
        return settings | limits_of(p.adapter, p.limits)

    def _arm_topics(self) -> dict[str, Any]:
        """Return an arm's configuration and its topics."""
        from wm_nodes.robots.arm.config.arm_config import find_config, read_config
        from wm_nodes.ros.arm.description import ArmDescription
        from wm_nodes.ros.arm.driver import RosDriver

        if self.params.mode != topics.REALTIME:
            raise RobotError("mode: an arm does not wait. Right: mode:=realtime.")
        config = read_config(find_config(self.params.robot), self.params.driver_ns)
        own = self.resolve_topic_name(topics.JOINT_STATES.name)
        if self.resolve_topic_name(config.joint_states) == own:
            raise RobotError(
                f"driver_ns: got {config.driver_ns}, whose joint states are on {own}, this node's "
                "own topic; expected another namespace than the robot node's. Set driver_ns or ns."
            )
        if self.params.rate_hz:
            config = replace(config, rate_hz=self.params.rate_hz)
        driver = RosDriver(self, config)
        self.commands = driver.node
        p = self.params
        try:
            self._views = DriverViews(self, config, driver.cameras, p.frame_prefix)
            self._description = ArmDescription(
                self, config, driver, tf=p.tf, frame_prefix=p.frame_prefix, rate_hz=p.link_rate_hz
            )
        except BaseException:
            driver.close()
            raise
        return {"config": config, "driver": driver}

    def _make_topics(self) -> None:
        self._images = {c: topics.IMAGE_RAW.publisher(self, camera=c) for c in self._spec.cameras}
        self._depths = {d: topics.IMAGE_RAW.publisher(self, camera=d) for d in self._spec.depths}
        cameras = {**self._spec.cameras, **self._spec.depths}
        views = self._views or SimulatedViews(self._robot, self.params.frame_prefix)
        self._infos = CameraInfos(self, cameras, views)
        self._joints = topics.JOINT_STATES.publisher(self)
        self._steps = topics.STEPS.publisher(self)
        self._spec_pub = topics.SPEC.publisher(self)
        late = topics.SubscriptionEventCallbacks(
            deadline=lambda info: self.health.faults.update(("plan-deadline",))
        )
        events = late if self.params.mode == topics.REALTIME else None
        self.listen(
            topics.PLAN,
            messages.plan_from_msg,
            self._on_plan,
            events=events,
            max_bytes=messages.largest_plan(self._spec.action.names),
        )
        self.listen(topics.RECORDED, lambda msg: msg, self._on_recorded)
        if self.params.ahead and self.params.mode == topics.LOCKSTEP:
            self.listen(topics.PACE, lambda msg: msg, self._on_pace)
        self.create_service(SetBool, "success", self._on_success)
        if isinstance(self._robot, RealtimeRobot) and self.params.mode == topics.REALTIME:
            self.control = RealtimeControl(self, self._robot, self._active_plan, self.commands)
            self._robot.set_speed_scale(self.get_parameter("speed_scale").value)
            if takes(self.params.adapter, "driver"):
                self._driver_services = self._make_driver_services(self._robot, self.control)
            return
        self.create_service(Trigger, "reset", self._on_reset)
        self.create_service(SetBool, "pause", self._on_pause)
        self.create_service(SetBool, "estop", self._on_estop)

    def _make_driver_services(self, arm: Any, control: RealtimeControl) -> DriverServices:
        from wm_nodes.nodes.driver_services import DriverServices

        return DriverServices(
            self, arm.config.driver, arm.motion.speed, control.loop, lambda: control.alive,
            dry_run=self.params.dry_run,
        )  # fmt: skip

    @property
    def nodes(self) -> list[Node]:
        """The ROS nodes that it consists of."""
        services = self._driver_services
        more = [] if services is None else [services.node, services.clients]
        return [self, *({self.commands} - {self}), *more]

    # Both modes ---------------------------------------------------------------------------------

    def save(self) -> None:
        """Store the counts, so that a restart goes on from them."""
        self._progress.save(self.session.counts)

    def _start(self) -> None:
        """Begin the next episode, or end the run."""
        self._plan = None
        self.save()
        arrival = self.session.begin()
        if arrival is None:
            self._robot.stop()
            self.end_run()
            return
        self._active_plan.begin(arrival.step.stamp_ns)
        self.publish(arrival)

    def end_run(self) -> None:
        """All episodes are done: end the program."""
        self._waiting = False
        self.health.facts["done"] = "true"
        images = (*self._images.values(), *self._depths.values(), *self._infos.publishers)
        for publisher in (self._steps, *images):
            publisher.wait_for_all_acked(ACK)
        self.get_logger().info("the run is over")
        self.finish()

    def _clock_ns(self) -> int:
        return self.get_clock().now().nanoseconds

    def publish(self, arrival: Arrival, again: bool = False) -> None:
        """Publish an observation; the step goes first, since a planner waits for it."""
        now, stamp = time.perf_counter(), arrival.step.stamp_ns
        self._observed(arrival)
        if self._clock_out is not None:
            self._clock_out.publish(stamp)
        self._steps.publish(messages.step_to_msg(arrival.step))
        for camera, image in arrival.images.items():
            frame = self._infos.frame_id(camera)
            self._images[camera].publish(messages.image_to_msg(image, stamp, frame))
            self._infos.publish(camera, stamp)
        for name, depth in arrival.depths.items():
            frame = self._infos.frame_id(name)
            self._depths[name].publish(messages.depth_to_msg(depth, stamp, frame))
            self._infos.publish(name, stamp)
        if len(arrival.proprio):
            names = self._spec.proprio.names
            self._joints.publish(messages.joints_to_msg(names, arrival.proprio, stamp))
        self._published_at = now
        if not again:
            self._first_at = self._spoke_at = now
            self._waiting = not arrival.step.is_last

    def _observed(self, arrival: Arrival) -> None:
        """Note when an observation was made and how old its images were: plans answer it."""
        if self.params.mode == topics.REALTIME:
            robot, age_s = self._robot, 0.0
            if isinstance(robot, RealtimeRobot):
                age_s = max(robot.image_age_s() - (time.monotonic() - arrival.made_s), 0.0)
            self._active_plan.observed(arrival.step.stamp_ns, arrival.made_s, age_s)

    def _execute(self, action: Vector, origin: Origin) -> None:
        arrival = self.session.execute(action, origin)
        self.count(arrival)
        self.publish(arrival)
        if arrival.step.is_last:
            self._start()

    def count(self, arrival: Arrival) -> None:
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
        """Has the robot done more than learning can keep up with? Not if nothing learns."""
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
        if self._recorded_ns == now.step.stamp_ns:
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
            self.publish(arrival, again=True)
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

    def _step_realtime(self) -> None:
        """A simulator on a timer: execute the action that is due, or hold still."""
        if self.session.now is None or self.over.done():
            return
        due = (
            "stopped" if self._stopped or self._paused else self._active_plan.due(time.monotonic())
        )
        if isinstance(due, str):
            self.fault("plan", due)
            self._execute(self._robot.holding(), HOLD)
            return
        self.well("plan", "plans are back")
        self._execute(due.action, due.origin)

    def _on_realtime_plan(self, plan: Plan) -> None:
        """Follow the newest plan of this episode."""
        now_s = time.monotonic()
        reason, text = self._active_plan.accept(plan, now_s)
        if reason:
            self.drop(f"plan/{reason}", text)
        else:
            self.health.worked(self._active_plan.age_s(now_s))

    def _on_parameters(self, given: list[Parameter]) -> SetParametersResult:
        """The speed scale: executed by the control loop before the parameter has its new value."""
        for parameter in given:
            if parameter.name == "speed_scale":
                if self.control is None:
                    return SetParametersResult(reason="speed_scale: only an arm has one")
                answer = self.control.answer("speed_scale", parameter.value)
                return SetParametersResult(successful=answer.done, reason=answer.text)
        return SetParametersResult(successful=True)

    # Services -----------------------------------------------------------------------------------

    def _on_reset(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        if not self.active or self._stopped:
            response.message = "not active, or stopped: nothing was reset"
            return response
        self.session.abandon()
        self._start()
        response.success = True
        return response

    def _on_pause(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        self._paused = request.data
        self._active_plan.invalidate(time.monotonic())
        response.success, response.message = True, "paused" if request.data else "going on"
        return response

    def _on_estop(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        """Latch: nothing is executed until the operator says false."""
        self._stopped = request.data
        self._active_plan.invalidate(time.monotonic())
        if request.data:
            self._plan = None
            self._robot.stop()
            self.fault("estop", "emergency stop: holding until it is cleared", error=True)
        else:
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
