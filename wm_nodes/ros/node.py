"""What all nodes share: parameters, life cycle with automatic start, checked messages, health."""

from __future__ import annotations

import time
from array import array
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

from diagnostic_msgs.msg import DiagnosticArray
from rcl_interfaces.msg import SetParametersResult
from rclpy.clock import Clock, ClockType
from rclpy.duration import Duration
from rclpy.lifecycle import (
    LifecycleNode,
    LifecyclePublisher,
    LifecycleState,
    TransitionCallbackReturn,
)
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.serialization import deserialize_message
from rclpy.subscription import Subscription
from rclpy.task import Future
from rclpy.timer import Timer

from wm_nodes.errors import MessageError
from wm_nodes.graphs.launch.process_identity import ProcessIdentity
from wm_nodes.ros import topics
from wm_nodes.ros.clock import ClockWatch
from wm_nodes.ros.diagnostics import Health
from wm_nodes.ros.graph_conflicts import GraphConflicts
from wm_nodes.ros.matched_subscription import MatchedSubscription
from wm_nodes.ros.parameters import declare, param

STEADY = Clock(clock_type=ClockType.STEADY_TIME)
DIAGNOSE_S = 1.0
LAST_WORD = Duration(seconds=0.5)
WARN_S = 5.0  # a complaint is repeated at most so often


@dataclass(frozen=True)
class ShellParams:
    """Parameters of every node."""

    autostart: bool = param(True, "Configure and activate by itself; false: wait to be told.")


@dataclass(frozen=True)
class _Fixed:
    subscription: Subscription


class Shell(LifecycleNode):
    """A lifecycle node around a core object.

    Subclasses name themselves and their parameters, and implement `configure` (make the core, the
    publishers and subscriptions), `activate`, `deactivate` and `cleanup`. UserError raised there
    ends the program with one line; anything else with its traceback.
    """

    NAME: ClassVar[str]
    NAMESPACE: ClassVar[str] = topics.NAMESPACE  # unless ROS gives another (__ns)
    PARAMS: ClassVar[type[ShellParams]] = ShellParams
    TAKES_OVER: ClassVar[bool] = False  # it begins when an earlier node of its name has ended
    FINISHES: ClassVar[bool] = False  # no signal interrupts its end, however long it takes

    def __init__(self, **options: Any) -> None:
        options.setdefault("namespace", self.NAMESPACE)
        super().__init__(self.NAME, **options)
        self.clock_watch = ClockWatch(self)
        self.params: Any = declare(self, self.PARAMS)
        self.health = Health()
        self.active = False
        self.begun = False  # was it ever active?
        self.alone = False  # has it a process to itself?
        self.over: Future = Future()
        self.exit_code = 0
        self.graph_conflicts = GraphConflicts(self)
        self._failure: BaseException | None = None
        self._warned: dict[str, float] = {}
        self._diagnostics = topics.DIAGNOSTICS.always(self)
        self.create_timer(DIAGNOSE_S, self.diagnose)

    # What a subclass is made of -----------------------------------------------------------------

    def configure(self) -> None:
        """Make the core, load and warm up, publish and subscribe."""

    def activate(self) -> None:
        """Begin to act."""

    def deactivate(self) -> None:
        """Stop acting; may be activated again."""

    def cleanup(self) -> None:
        """Free what `configure` made; called once at the end too, whatever happened before."""

    def own_process(self, identity: ProcessIdentity | None) -> None:
        """It has a process to itself, which this is; None: no identity that others can read."""
        self.alone = True
        self.graph_conflicts.take(identity)

    # Life ---------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Start by itself if asked to; raise what went wrong."""
        if not self.params.autostart:
            return
        if self.TAKES_OVER:
            self.graph_conflicts.wait()
        self.trigger_configure()
        self._raise()
        self.graph_conflicts.wait()
        if self.over.done():
            return
        self.trigger_activate()
        self._raise()

    def end(self) -> None:
        """Stop acting, say the last word, free everything. Errors are reported, not raised."""
        for step in (self._deactivate, self.diagnose, self.cleanup, self._be_heard):
            try:
                step()
            except Exception as error:
                self.get_logger().error(f"while ending: {error}")

    def finish(self, code: int = 0) -> None:
        """Ask for the end of the program; may be called from any thread."""
        if not self.over.done():
            self.exit_code = code
            self.over.set_result(None)

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._before, self._failure = self._made(), None
        self._listening = set(self._on_set_parameters_callbacks)
        result = self._try(self.configure, super().on_configure, state)
        if result != TransitionCallbackReturn.SUCCESS:
            self._unmake()
        return result

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        made = self._try(self.graph_conflicts.refuse_second, None, state)
        if made != TransitionCallbackReturn.SUCCESS:
            return made
        result = super().on_activate(state)
        self.active = True
        made = self._try(self.activate, None, state)
        self.active = made == TransitionCallbackReturn.SUCCESS
        if self.active:
            self.begun = True
            self.get_logger().info("active")
        return result if self.active else made

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        result = self._try(self._deactivate, super().on_deactivate, state)
        self.health.rest()
        return result

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        result = self._try(self.cleanup, super().on_cleanup, state)
        self._unmake()
        self.health.rest()
        return result

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        self.health.facts["done"] = "true"  # who waits for this node's end need not wait longer
        self.finish()
        return super().on_shutdown(state)

    def destroy_node(self) -> None:
        """Destroy the node and the lifecycle's state machine, which would keep its participant."""
        self.clock_watch.close()
        super().destroy_node()
        del self._state_machine

    def _made(self) -> dict[str, set[Any]]:
        """Everything on the ROS graph that belongs to this node now."""
        kinds = ("subscription", "publisher", "timer", "service")
        return {kind: set(getattr(self, f"{kind}s")) for kind in kinds}

    def _unmake(self) -> None:
        """Destroy what `configure` put on the ROS graph, and forget its parameter callbacks."""
        for callback in set(self._on_set_parameters_callbacks) - self._listening:
            self.remove_on_set_parameters_callback(callback)
        for kind, entities in self._made().items():
            for entity in entities - self._before[kind]:
                if isinstance(entity, LifecyclePublisher):
                    self.destroy_lifecycle_publisher(entity)
                else:
                    getattr(self, f"destroy_{kind}")(entity)

    def _deactivate(self) -> None:
        if self.active:
            self.active = False
            self.deactivate()

    def _try(
        self,
        own: Callable[[], None],
        parent: Callable[[LifecycleState], TransitionCallbackReturn] | None,
        state: LifecycleState,
    ) -> TransitionCallbackReturn:
        """rclpy swallows what a transition raises; keep it, say it, and fail the transition."""
        try:
            own()
        except Exception as error:
            self._failure = error
            if not self.params.autostart:
                self.get_logger().error(str(error))
            return TransitionCallbackReturn.FAILURE
        return parent(state) if parent else TransitionCallbackReturn.SUCCESS

    def _raise(self) -> None:
        if self._failure is not None:
            raise self._failure

    def create_timer(self, *given: Any, **options: Any) -> Timer:
        """Make a timer; on the steady clock unless told otherwise, since /clock may stand still."""
        options.setdefault("clock", STEADY)
        return super().create_timer(*given, **options)

    # Parameters ---------------------------------------------------------------------------------

    def set_parameters_atomically(self, parameter_list: list[Parameter]) -> SetParametersResult:
        """Set parameters; those that have their value already are left out.

        So the dump of all parameters can be loaded, though most of them are fixed.
        """
        new = [parameter for parameter in parameter_list if not self._has(parameter)]
        return (
            super().set_parameters_atomically(new) if new else SetParametersResult(successful=True)
        )

    def _has(self, parameter: Parameter) -> bool:
        if not self.has_parameter(parameter.name):
            return False
        now, given = self.get_parameter(parameter.name).value, parameter.value
        if isinstance(given, (list, tuple, array)) and isinstance(now, (list, tuple, array)):
            return list(now) == list(given)  # the type of an empty array is lost in YAML
        return type(now) is type(given) and bool(now == given)

    # Messages -----------------------------------------------------------------------------------

    def listen(
        self,
        topic: topics.Topic,
        convert: Callable[[Any], Any],
        handle: Callable[..., None],
        qos: QoSProfile | None = None,
        *,
        idle: bool = False,
        events: topics.SubscriptionEventCallbacks | None = None,
        max_bytes: int = 0,
        **names: str,
    ) -> Callable[[], None]:
        """Subscribe; what `convert` refuses is dropped and counted. `idle`: when inactive too.

        max_bytes: larger messages are dropped before they are deserialized, which may take seconds;
        0: no limit. A `qos` of best effort stands for what the publishers offer (see
        MatchedSubscription). Returns a function that handles at once all messages that have come
        already.
        """
        shown = topic.name.format(**names)
        full_name = self.resolve_topic_name(shown)

        def use(msg: Any) -> None:
            if not (self.active or idle):
                return
            try:
                record = convert(self._checked(msg, topic, max_bytes) if max_bytes else msg)
            except MessageError as error:
                self.drop(f"{shown}/{error.reason}", str(error))
                return
            handle(*record) if type(record) is tuple else handle(record)

        def callback(msg: Any, info: Any) -> None:
            self.graph_conflicts.release()
            wanted = self.active or idle
            small = not max_bytes or len(msg) <= max_bytes  # others are dropped, and not kept
            judged = wanted and small and topic.single
            if not judged or self.graph_conflicts.admits(full_name, shown, use, msg, info):
                use(msg)

        raw = max_bytes > 0
        identified = hasattr(Subscription, "CallbackType")  # Humble gives no message info
        told: Callable[..., None] = callback if identified else lambda msg: callback(msg, {})
        asked = qos or topic.qos
        source: MatchedSubscription | _Fixed
        if asked.reliability == ReliabilityPolicy.BEST_EFFORT:
            lost = partial(self.lost, shown)
            source = MatchedSubscription(
                self, topic.type, shown, told, asked.depth, on_lost=lost, raw=raw
            )
        else:
            source = _Fixed(topic.subscription(self, told, qos, events, raw=raw, **names))

        def take() -> None:
            subscription = source.subscription
            with subscription.handle:
                while taken := subscription.handle.take_message(subscription.msg_type, raw):
                    callback(*taken)

        return take

    @staticmethod
    def _checked(serialized: bytes, topic: topics.Topic, max_bytes: int) -> Any:
        if len(serialized) > max_bytes:
            raise MessageError(
                "size",
                f"{topic.name}: got a message of {len(serialized)} bytes, expected at most "
                f"{max_bytes}. It is not read",
            )
        return deserialize_message(serialized, topic.type)

    def drop(self, reason: str, text: str) -> None:
        """Count a message that is not used; say why, now and then."""
        count = self.health.drop(reason)
        self.warn(f"drop/{reason}", f"dropped ({count} so far): {text}")

    def lost(self, topic: str, count: int) -> None:
        """Count messages that were published and did not arrive."""
        reason = f"{topic.lstrip('/')}/lost"
        total = self.health.drop(reason, count)
        self.warn(
            f"drop/{reason}",
            f"{topic}: lost {total} messages so far on their way, expected none. Give their "
            "publisher the Fast DDS profile (docs/topics.md), or more CPU time.",
        )

    def fault(self, name: str, text: str, *, error: bool = False) -> None:
        """Report something wrong until it is `well` again. error: the node cannot do its work."""
        if self.health.fault(name, text, error=error):
            self.warn(f"fault/{name}", text)

    def well(self, name: str, text: str) -> None:
        """Report that a fault is over; nothing if there was none."""
        if self.health.cleared(name) and self._due(f"well/{name}"):
            self.get_logger().info(text)

    def warn(self, key: str, text: str) -> None:
        """Log a warning, each key at most every WARN_S seconds."""
        if self._due(key):
            self.get_logger().warn(text)

    def _due(self, key: str) -> bool:
        now = time.monotonic()
        due = now - self._warned.get(key, -WARN_S) >= WARN_S
        if due:
            self._warned[key] = now
        return due

    def _be_heard(self) -> None:
        """Go only when all have the last word: the end of a run may hang on it."""
        self._diagnostics.wait_for_all_acked(LAST_WORD)

    def diagnose(self) -> None:
        """Publish this node's state on /diagnostics."""
        self.clock_watch.report()
        msg = DiagnosticArray(status=[self.health.status(self.get_fully_qualified_name())])
        msg.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(msg)
