"""Base of all nodes: parameters, life cycle with automatic start, checked messages, diagnostics."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar, cast, get_args

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
from rclpy.qos import QoSProfile
from rclpy.task import Future
from rclpy.timer import Timer

from wm_nodes.graphs.launch.process_identity import ProcessIdentity
from wm_nodes.ros import topics
from wm_nodes.ros.checked_subscription import CheckedSubscription
from wm_nodes.ros.clock import ClockWatch
from wm_nodes.ros.diagnostics import NodeDiagnostics
from wm_nodes.ros.graph_conflicts import GraphConflicts
from wm_nodes.ros.parameters import declare, has_value, param

STEADY = Clock(clock_type=ClockType.STEADY_TIME)
DIAGNOSE_S = 1.0
FLUSH = Duration(seconds=0.5)  # to wait at the end until subscribers have the last diagnostics
WARN_S = 5.0  # shortest time between two equal warnings


@dataclass(frozen=True)
class NodeParams:
    """Parameters of every node."""

    autostart: bool = param(
        True,
        "Configure and activate at the start; false: wait for lifecycle transitions from outside.",
    )


P = TypeVar("P", bound=NodeParams)


class ManagedNode(LifecycleNode, Generic[P]):
    """A lifecycle node around an object that does the work without ROS.

    A subclass names its parameters, as in `CameraNode(ManagedNode[CameraParams])`, sets NAME, and
    implements `configure` (make that object, publishers and subscriptions), `activate`,
    `deactivate` and `cleanup`. UserError raised there ends the program with one line; any other
    exception with its traceback. (Over 250 lines: rclpy requires a method for every transition.)
    """

    NAME: ClassVar[str]
    NAMESPACE: ClassVar[str] = topics.NAMESPACE  # the default; `__ns` sets another
    PARAMS: ClassVar[type[NodeParams]] = NodeParams  # set by the subclass's type argument
    TAKES_OVER: ClassVar[bool] = False  # waits until an earlier node of its name has ended
    FINISHES: ClassVar[bool] = False  # no signal interrupts its shutdown, however long that takes

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        for base in vars(cls).get("__orig_bases__", ()):
            for argument in get_args(base):
                if isinstance(argument, type) and issubclass(argument, NodeParams):
                    cls.PARAMS = argument

    def __init__(self, **options: Any) -> None:
        options.setdefault("namespace", self.NAMESPACE)
        super().__init__(self.NAME, **options)
        self.clock_watch = ClockWatch(self)
        self.params = declare(self, cast("type[P]", self.PARAMS))
        self.diagnostics = NodeDiagnostics()
        self.active = False
        self.was_active = False
        self.owns_process = False  # no other node runs in this process
        self.finished: Future[Any] = Future()
        self.exit_code = 0
        self.graph_conflicts = GraphConflicts(self)
        self._failure: BaseException | None = None
        self._warned: dict[str, float] = {}
        self._diagnostics_pub = topics.DIAGNOSTICS.always(self)
        self.create_timer(DIAGNOSE_S, self.diagnose)

    # Implemented by subclasses ------------------------------------------------------------------

    def configure(self) -> None:
        """Load and warm up; make publishers and subscriptions."""

    def activate(self) -> None:
        """Start the work."""

    def deactivate(self) -> None:
        """Stop the work; `activate` may follow."""

    def cleanup(self) -> None:
        """Free what `configure` made; also called once at the end, in every state."""

    def own_process(self, identity: ProcessIdentity | None) -> None:
        """Set `owns_process`. identity: of the process; None: others cannot read it."""
        self.owns_process = True
        self.graph_conflicts.take(identity)

    # Life cycle ---------------------------------------------------------------------------------

    def begin(self) -> None:
        """Configure and activate if `autostart`; raise the exception of a failed transition."""
        if not self.params.autostart:
            return
        if self.TAKES_OVER:
            self.graph_conflicts.wait()
        self.trigger_configure()
        self._raise()
        self.graph_conflicts.wait()
        if self.finished.done():
            return
        self.trigger_activate()
        self._raise()

    def end(self) -> None:
        """Deactivate, publish the last diagnostics, free all. Errors are logged, not raised."""
        for step in (self._deactivate, self.diagnose, self.cleanup, self._flush_diagnostics):
            try:
                step()
            except Exception as error:
                self.get_logger().error(f"while ending: {error}")

    def finish(self, code: int = 0) -> None:
        """Request the end of the program with this exit code; may be called from any thread."""
        if not self.finished.done():
            self.exit_code = code
            self.finished.set_result(None)

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._before, self._failure = self._entities(), None
        self._parameter_callbacks = set(self._on_set_parameters_callbacks)
        result = self._try(self.configure, super().on_configure, state)
        if result != TransitionCallbackReturn.SUCCESS:
            self._destroy_entities()
        return result

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        outcome = self._try(self.graph_conflicts.refuse_second, None, state)
        if outcome != TransitionCallbackReturn.SUCCESS:
            return outcome
        result = super().on_activate(state)
        self.active = True
        outcome = self._try(self.activate, None, state)
        self.active = outcome == TransitionCallbackReturn.SUCCESS
        if self.active:
            self.was_active = True
            self.get_logger().info("active")
        return result if self.active else outcome

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        result = self._try(self._deactivate, super().on_deactivate, state)
        self.diagnostics.reset()
        return result

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        result = self._try(self.cleanup, super().on_cleanup, state)
        self._destroy_entities()
        self.diagnostics.reset()
        return result

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        self.diagnostics.facts["done"] = (
            "true"  # processes that wait for this node's end stop waiting
        )
        self.finish()
        return super().on_shutdown(state)

    def destroy_node(self) -> None:
        """Destroy the node and the lifecycle's state machine, which would keep its participant."""
        self.clock_watch.close()
        super().destroy_node()
        del self._state_machine

    def _entities(self) -> dict[str, set[Any]]:
        """Return everything of this node on the ROS graph."""
        kinds = ("subscription", "publisher", "timer", "service")
        return {kind: set(getattr(self, f"{kind}s")) for kind in kinds}

    def _destroy_entities(self) -> None:
        """Destroy what `configure` put on the ROS graph, and its parameter callbacks."""
        for callback in set(self._on_set_parameters_callbacks) - self._parameter_callbacks:
            self.remove_on_set_parameters_callback(callback)
        for kind, entities in self._entities().items():
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
        """Keep and log an exception of a transition, which rclpy would swallow; return FAILURE."""
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

    def create_timer(self, *args: Any, **options: Any) -> Timer:
        """Make a timer; on the steady clock by default, since /clock may stand still."""
        options.setdefault("clock", STEADY)
        return super().create_timer(*args, **options)

    # Parameters ---------------------------------------------------------------------------------

    def set_parameters_atomically(
        self, parameter_list: list[Parameter[Any]]
    ) -> SetParametersResult:
        """Set parameters; those that already have the given value are skipped.

        So a dump of all parameters can be loaded, although most of them are read-only.
        """
        new = [parameter for parameter in parameter_list if not has_value(self, parameter)]
        return (
            super().set_parameters_atomically(new) if new else SetParametersResult(successful=True)
        )

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
        """Subscribe; a message that `convert` refuses (MessageError) is dropped and counted.

        handle: called with the converted message. idle: also while the node is inactive. max_bytes:
        larger messages are dropped before they are deserialized, which may take seconds; 0: no
        limit. A `qos` of best effort takes what the publishers offer (see MatchedSubscription).
        Returns a function that handles all messages that wait in the queue.
        """
        subscription = CheckedSubscription(
            self, topic, convert, handle, qos,
            idle=idle, events=events, max_bytes=max_bytes, names=names,
        )  # fmt: skip
        return subscription.drain

    def drop(self, reason: str, text: str) -> None:
        """Count a message that is not used; log the reason, at most every WARN_S seconds."""
        count = self.diagnostics.count_drop(reason)
        self.warn(f"drop/{reason}", f"dropped ({count} so far): {text}")

    def report_lost(self, topic: str, count: int) -> None:
        """Count messages that were published and not received."""
        reason = f"{topic.lstrip('/')}/lost"
        total = self.diagnostics.count_drop(reason, count)
        self.warn(
            f"drop/{reason}",
            f"{topic}: got {total} lost messages so far, expected none. Give their publisher the "
            "Fast DDS profile (docs/topics.md), or more CPU time.",
        )

    def report_fault(self, name: str, text: str, *, error: bool = False) -> None:
        """Set a fault until `clear_fault`. error: the node cannot do its work."""
        if self.diagnostics.report_fault(name, text, error=error):
            self.warn(f"fault/{name}", text)

    def clear_fault(self, name: str, text: str) -> None:
        """Clear a fault and log `text`; does nothing if it is not set."""
        if self.diagnostics.clear_fault(name) and self._due(f"cleared/{name}"):
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

    def _flush_diagnostics(self) -> None:
        """Wait until subscribers have the last diagnostics: the end of a run may depend on them."""
        self._diagnostics_pub.wait_for_all_acked(FLUSH)

    def diagnose(self) -> None:
        """Publish this node's state on /diagnostics."""
        self.clock_watch.report()
        msg = DiagnosticArray(status=[self.diagnostics.status(self.get_fully_qualified_name())])
        msg.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics_pub.publish(msg)
