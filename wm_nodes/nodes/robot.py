"""Plans in, observations out: a robot or simulator on topics, in lock-step or in real time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from rcl_interfaces.msg import SetParametersResult
from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.parameter import Parameter
from std_msgs.msg import Header, UInt64
from std_srvs.srv import SetBool, Trigger

from wm_nodes.control.active_plan import ActivePlan
from wm_nodes.control.base import Control
from wm_nodes.control.lockstep import LockstepControl, LockstepSettings
from wm_nodes.control.plans import check_plan
from wm_nodes.control.realtime_control import RealtimeControl, RealtimeSettings
from wm_nodes.control.safety_record import default_path
from wm_nodes.control.timed import TimedControl
from wm_nodes.episodes.runner import EpisodeRunner
from wm_nodes.episodes.schedule import Counts, CountsFile, Schedule, StopCriteria
from wm_nodes.errors import MessageError, user_errors
from wm_nodes.records import Answer, Plan, Transition
from wm_nodes.robots.opening import limits_of, open_robot, takes
from wm_nodes.robots.robot import RealtimeRobot, Robot, RobotError
from wm_nodes.robots.sims import background_sources
from wm_nodes.ros import messages, spin, topics
from wm_nodes.ros.camera_info import CameraInfos, SimulatedViews
from wm_nodes.ros.clock import ClockPublisher
from wm_nodes.ros.node import ManagedNode, NodeParams
from wm_nodes.ros.observations import ObservationPublisher
from wm_nodes.ros.parameters import param

if TYPE_CHECKING:
    from wm_nodes.ros.arm.arm_topics import ArmTopics
    from wm_nodes.ros.driver_services import DriverServices

ACKNOWLEDGE = Duration(seconds=1.0)  # longest wait for the last messages of a run


@dataclass(frozen=True)
class RobotParams(NodeParams):
    adapter: str = param(
        "metaworld",
        "Robot: name of a shipped one, or your own class as module:Class or FILE.py:Class.",
    )
    task: str = param("drawer-close-v3", "Task of the robot.")
    seed: int = param(0, "Seed of all episodes.", low=0, high=2**31 - 1)
    mode: str = param(
        "lockstep",
        "lockstep: the robot waits for a plan at each agent step; realtime: it never waits.",
        choices=topics.MODES,
    )
    episodes: int = param(0, "End after this many episodes; 0: no limit.", low=0)
    steps: int = param(0, "End after this many simulator steps; 0: no limit.", low=0)
    evaluate: bool = param(False, "Run evaluation episodes only (explore=0).")
    eval_every: int = param(
        0, "Agent steps of training between two blocks of evaluation; 0: no evaluation.", low=0
    )
    eval_episodes: int = param(20, "Episodes of a block of evaluation.", low=1)
    action_repeat: int = param(2, "Simulator steps per agent step.", low=1, high=20)
    time_limit: int = param(250, "Agent steps per episode.", low=1)
    render: str = param(
        "auto",
        "Rendering quality: full, fast, or auto (full on a GPU, else fast).",
        choices=("auto", "fast", "full"),
    )
    camera: str = param("corner4", "Camera of the simulator.")
    size: int = param(64, "Width and height of the images, in pixels.", low=8, high=1024)
    background: str = param(
        background_sources.NONE,
        f"dm_control: what replaces sky and floor: {background_sources.HELP}.",
    )
    limits: str = param(
        "",
        "YAML file of action limits; empty: config/robots/<adapter>.yaml of a shipped robot, the "
        "default of your own class.",
    )
    progress: str = param(
        "",
        "File for the counts of the run, from which a restarted node continues; empty: no file.",
    )
    retry_s: float = param(
        0.5,
        "Lock-step: publish an unanswered observation again after this time [s].",
        low=0.01,
    )
    timeout_s: float = param(30.0, "Lock-step: report a missing plan after this time [s].", low=0.1)
    await_recorder_s: float = param(
        0.0,
        "Lock-step: longest wait for the recorder at an episode's start [s]; 0: do not wait.",
        low=0.0,
    )
    pace_hz: float = param(0.0, "Lock-step: most agent steps per second; 0: no limit.", low=0.0)
    ahead: int = param(
        0,
        "Lock-step: most agent steps that the robot may execute before the trainer has processed "
        "them; 0: no limit.",
        low=0,
    )
    rate_hz: float = param(
        0.0, "Real time: control rate [Hz]; 0: the robot's own.", low=0.0, high=1000.0
    )
    await_planner_s: float = param(
        0.0,
        "Real time: longest wait for a planner before an episode starts [s]; 0: do not wait.",
        low=0.0,
    )
    robot: str = param("arm_sim", "Arm: a name of config/robots, or the path of a YAML file.")
    driver_ns: str = param(
        "", "Arm: namespace for relative names in the robot's YAML; empty: the one in the YAML."
    )
    dry_run: bool = param(False, "Arm: do everything except sending commands.")
    home: bool = param(True, "Arm: move to the home pose before each episode.")
    confirm_home: bool = param(
        False, "Arm: move to the home pose only after the operator calls go_home, each time."
    )
    safety_file: str = param(
        "",
        "Arm: file that keeps latches when the node restarts; empty: one file for each robot, in "
        "$XDG_STATE_HOME/wm_nodes/robots.",
    )
    require_realtime: bool = param(
        False, "Arm: refuse to start without real-time priority and locked memory."
    )
    tf: str = param(
        "auto",
        "Arm: publish /tf; auto: unless another node publishes a robot_description.",
        choices=topics.TF_CHOICES,
    )
    frame_prefix: str = param("", "Prefix of the names of all coordinate frames.")
    link_rate_hz: float = param(50.0, "Arm: most link transforms per second.", low=0.1, high=50.0)
    speed_scale: float = param(
        1.0,
        "Arm: largest speed, as a share of the speed limits. May be set while the node runs.",
        low=0.05,
        high=1.0,
        live=True,
    )
    max_age_s: float = param(
        0.25,
        "Real time: hold the last action of a plan for this time after its end, then stop [s].",
        low=0.0,
    )
    max_plan_s: float = param(
        2.0,
        "Real time: longest time after its observation for which a plan is followed [s].",
        low=0.01,
        high=60.0,
    )


class RobotNode(ManagedNode[RobotParams]):
    """The only node that moves anything: its services, topics and parameters.

    `control` decides when an action is executed. Messages of one observation have one stamp.
    """

    NAME = "robot"
    TAKES_OVER = True
    FINISHES = True  # a second signal does not interrupt coming to rest
    runner: EpisodeRunner
    control: Control
    _robot: Robot
    _arm: ArmTopics | None = None
    _driver_services: DriverServices | None = None

    def configure(self) -> None:
        with user_errors(RobotError, ValueError):
            self._counts_file = CountsFile(self.params.progress)
            counts = self._counts_file.load()
            self._robot = self._open_robot()
        # A simulator publishes the time where the nodes use simulated time.
        clock = None if isinstance(self._robot, RealtimeRobot) else ClockPublisher(self)
        self._clipped = 0
        self.runner = self._make_runner(counts, makes_time=clock is not None and clock.on)
        self._spec_pub = topics.SPEC.publisher(self)  # first: planners see it before the steps
        self._observations = self._make_publisher(clock)
        self._subscribe()
        self.control = self._make_control()
        self._make_services()
        self.add_on_set_parameters_callback(self._on_parameters)

    def activate(self) -> None:
        self._spec_pub.publish(messages.spec_to_msg(self._robot.spec.log_spec()))
        self.diagnostics.ready = True
        if isinstance(self.control, RealtimeControl):
            self._bell = self.create_guard_condition(self._on_bell)
            self.control.wake = self._bell.trigger
        self.control.start()
        self._timer = self.create_timer(self.control.tick_s, self.control.tick)

    def deactivate(self) -> None:
        self.control.stop()
        self.destroy_timer(self._timer)
        if isinstance(self.control, RealtimeControl):
            self.destroy_guard_condition(self._bell)
        self.save_counts()

    def cleanup(self) -> None:
        if self._arm is not None:
            self._arm.close()
        if self._driver_services is not None:
            self._driver_services.close()
        self._arm = self._driver_services = None
        if hasattr(self, "_robot"):
            self._robot.close()
            del self._robot

    @property
    def commands(self) -> Node:
        """The node of the emergency stop: for an arm, one with an executor of its own."""
        return self if self._arm is None else self._arm.driver.node

    @property
    def nodes(self) -> list[Node]:
        """All ROS nodes that this node consists of."""
        services = self._driver_services
        more = [] if services is None else [services.node, services.clients]
        return [self, *({self.commands} - {self}), *more]

    # Making -------------------------------------------------------------------------------------

    def _open_robot(self) -> Robot:
        p = self.params
        names = "task seed action_repeat time_limit render camera size background dry_run home"
        settings: dict[str, Any] = {name: getattr(p, name) for name in names.split()}
        if takes(p.adapter, "driver"):
            self._arm = self._make_arm()
            settings |= {"config": self._arm.config, "driver": self._arm.driver}
        try:
            return open_robot(p.adapter, settings | limits_of(p.adapter, p.limits))
        except BaseException:
            if self._arm is not None:
                self._arm.driver.close()
            raise

    def _make_arm(self) -> ArmTopics:
        from wm_nodes.ros.arm.arm_topics import ArmTopics, arm_config

        p = self.params
        if p.mode != topics.REALTIME:
            raise RobotError(
                "mode: got lockstep, expected realtime, since an arm does not wait for plans. Set "
                "mode:=realtime."
            )
        config = arm_config(self, p.robot, p.driver_ns, p.rate_hz)
        return ArmTopics(
            self, config, tf=p.tf, frame_prefix=p.frame_prefix, link_rate_hz=p.link_rate_hz
        )

    def _make_runner(self, counts: Counts, *, makes_time: bool) -> EpisodeRunner:
        p = self.params
        criteria = StopCriteria(p.episodes, p.steps, p.eval_every, p.eval_episodes, p.evaluate)
        follows = p.mode == topics.REALTIME and not makes_time
        clock = (lambda: int(self.get_clock().now().nanoseconds)) if follows else None
        return EpisodeRunner(self._robot, Schedule(criteria, p.seed, counts), clock)

    def _make_publisher(self, clock: ClockPublisher | None) -> ObservationPublisher:
        spec, prefix = self._robot.spec, self.params.frame_prefix
        views = SimulatedViews(self._robot, prefix) if self._arm is None else self._arm.views
        infos = CameraInfos(self, {**spec.cameras, **spec.depths}, views)
        return ObservationPublisher(
            self, spec.cameras, spec.depths, spec.proprio.names, infos=infos, clock=clock
        )

    def _subscribe(self) -> None:
        p, events = self.params, None
        if p.mode == topics.REALTIME:
            faults = self.diagnostics.faults
            events = topics.SubscriptionEventCallbacks(
                deadline=lambda info: faults.update(("plan-deadline",))
            )
        self.listen(
            topics.PLAN,
            messages.plan_from_msg,
            self._on_plan,
            events=events,
            max_bytes=messages.largest_plan(self._robot.spec.action.names),
        )
        self.listen(topics.RECORDED, lambda msg: msg, self._on_recorded)
        if p.ahead and p.mode == topics.LOCKSTEP:
            self.listen(topics.PACE, lambda msg: msg, self._on_pace)

    def _make_control(self) -> Control:
        p, robot = self.params, self._robot
        if p.mode == topics.LOCKSTEP:
            settings = LockstepSettings(
                p.retry_s, p.timeout_s, p.await_recorder_s, p.pace_hz, p.ahead
            )
            return LockstepControl(self.runner, self, settings)
        period_s = robot.spec.control_period_s
        plan = ActivePlan(period_s, p.max_age_s, p.max_plan_s)
        if isinstance(robot, RealtimeRobot):
            return self._make_realtime(robot, plan)
        return TimedControl(self.runner, self, plan, 1.0 / p.rate_hz if p.rate_hz else period_s)

    def _make_realtime(self, robot: RealtimeRobot, plan: ActivePlan) -> RealtimeControl:
        p = self.params
        domain = str(self.context.get_domain_id())
        own_record = default_path(robot.spec.name, domain, self.get_namespace())
        settings = RealtimeSettings(
            Path(p.safety_file) if p.safety_file else own_record,
            p.home,
            p.confirm_home,
            p.await_planner_s,
            p.require_realtime,
            self.owns_process,
        )
        control = RealtimeControl(self.runner, robot, plan, self, settings)
        robot.set_speed_scale(self.get_parameter("speed_scale").value)
        if self._arm is not None:
            from wm_nodes.ros.driver_services import DriverServices

            speed = cast("Any", robot).motion.speed
            self._driver_services = DriverServices(
                self, self._arm.config.driver, speed, control.loop, lambda: control.alive,
                dry_run=p.dry_run,
            )  # fmt: skip
        return control

    # Output of the control loop -----------------------------------------------------------------

    def publish(self, transition: Transition, *, repeated: bool = False) -> None:
        self._observations.publish(transition)
        if repeated:
            return
        step, counts = transition.step, self.runner.counts
        self._clipped += bool((step.executed != step.commanded).any())
        self.diagnostics.facts.update(
            steps=counts.steps,
            decisions=counts.decisions,
            episodes=counts.episodes,
            eval_episodes=counts.eval_episodes,
            clipped=self._clipped,
        )

    def save_counts(self) -> None:
        self._counts_file.save(self.runner.counts)

    def end_run(self) -> None:
        self.diagnostics.facts["done"] = "true"
        self._observations.wait_for_acknowledgements(ACKNOWLEDGE)
        self.get_logger().info("the run is over")
        self.finish()

    def has_planner(self) -> bool:
        return self.count_publishers(topics.PLAN.name) > 0

    def has_trainer(self) -> bool:
        return self.count_publishers(topics.PACE.name) > 0

    # Messages and services ----------------------------------------------------------------------

    def _on_plan(self, plan: Plan) -> None:
        try:
            plan = check_plan(plan, self._robot.spec.action)
        except MessageError as error:
            self.drop(f"plan/{error.reason}", str(error))
            return
        reason, text = self.control.accept(plan)
        if text:
            self.drop(f"plan/{reason}", text)
        elif reason:
            self.diagnostics.count_drop(f"plan/{reason}")

    def _on_recorded(self, msg: Header) -> None:
        if isinstance(self.control, LockstepControl):
            self.control.confirm_recorded(messages.from_time(msg.stamp))

    def _on_pace(self, msg: UInt64) -> None:
        if isinstance(self.control, LockstepControl):
            self.control.set_learned_steps(msg.data)

    def _on_bell(self) -> None:
        assert isinstance(self.control, RealtimeControl)
        if self.active and not self.finished.done():
            self.control.on_wake()

    def _on_parameters(self, parameters: list[Parameter[Any]]) -> SetParametersResult:
        """Pass a new speed scale to the control loop, which may refuse it."""
        for parameter in parameters:
            if parameter.name == "speed_scale":
                answer = self.control.request("speed_scale", parameter.value)
                return SetParametersResult(successful=answer.done, reason=answer.text)
        return SetParametersResult(successful=True)

    def _make_services(self) -> None:
        control, realtime = self.control, isinstance(self.control, RealtimeControl)
        self.commands.create_service(
            SetBool, "estop", _service(lambda request: control.estop(on=request.data))
        )
        pause = _service(lambda request: control.request("pause" if request.data else "resume"))
        self.create_service(SetBool, "pause", pause)
        for name in ("reset", "resume", "go_home") if realtime else ("reset",):
            call = _service(lambda request, name=name: control.request(name))
            self.create_service(Trigger, name, call)
        self.create_service(SetBool, "success", _service(self._label))

    def _label(self, request: SetBool.Request) -> Answer:
        self.runner.success_label = request.data
        return Answer(True, "the next step has this label")


def _service(call: Callable[..., Answer]) -> Callable[[Any, Any], Any]:
    """Return the handler of a Trigger or SetBool service whose request `call` answers."""

    def handle(request: Any, response: Any) -> Any:
        answer = call(request)
        response.success, response.message = answer.done, answer.text
        return response

    return handle


def main() -> None:
    spin.main(RobotNode)


if __name__ == "__main__":
    main()
