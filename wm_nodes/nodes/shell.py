"""What all nodes share: parameters, life cycle with automatic start, checked messages, health."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.clock import Clock, ClockType
from rclpy.duration import Duration
from rclpy.lifecycle import (
    LifecycleNode,
    LifecyclePublisher,
    LifecycleState,
    TransitionCallbackReturn,
)
from rclpy.qos import QoSProfile
from rclpy.serialization import deserialize_message
from rclpy.task import Future
from rclpy.timer import Timer

from wm_nodes import topics
from wm_nodes.errors import MessageError
from wm_nodes.health import Health
from wm_nodes.params import declare, param

STEADY = Clock(clock_type=ClockType.STEADY_TIME)
DIAGNOSE_S = 1.0
LAST_WORD = Duration(seconds=0.5)
WARN_S = 5.0  # a complaint is repeated at most so often


@dataclass(frozen=True)
class ShellParams:
    """Parameters of every node."""

    autostart: bool = param(True, "Configure and activate by itself; false: wait to be told.")


class Shell(LifecycleNode):
    """A lifecycle node around a core object.

    Subclasses name themselves and their parameters, and implement `configure` (make the core, the
    publishers and subscriptions), `activate`, `deactivate` and `cleanup`. UserError raised there
    ends the program with one line; anything else with its traceback.
    """

    NAME: ClassVar[str]
    NAMESPACE: ClassVar[str] = topics.NAMESPACE  # unless ROS gives another (__ns)
    PARAMS: ClassVar[type[ShellParams]] = ShellParams
    FINISHES: ClassVar[bool] = False  # a second signal does not interrupt its end

    def __init__(self, **options: Any) -> None:
        options.setdefault("namespace", self.NAMESPACE)
        super().__init__(self.NAME, **options)
        self.params: Any = declare(self, self.PARAMS)
        self.health = Health()
        self.active = False
        self.alone = False  # has it a process to itself? Whoever runs it so says it
        self.over: Future = Future()
        self.exit_code = 0
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

    # Life ---------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Start by itself if asked to; raise what went wrong."""
        if not self.params.autostart:
            return
        self.trigger_configure()
        self._raise()
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
        self._before = self._made()
        result = self._try(self.configure, super().on_configure, state)
        if result != TransitionCallbackReturn.SUCCESS:
            self._unmake()
        return result

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        result = super().on_activate(state)
        self.active = True
        made = self._try(self.activate, None, state)
        self.active = made == TransitionCallbackReturn.SUCCESS
        if self.active:
            self.get_logger().info("active")
        return result if self.active else made

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        return self._try(self._deactivate, super().on_deactivate, state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        result = self._try(self.cleanup, super().on_cleanup, state)
        self._unmake()
        return result

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        self.health.facts["done"] = "true"  # who waits for this node's end need not wait longer
        self.finish()
        return super().on_shutdown(state)

    def destroy_node(self) -> None:
        """Destroy the node and the lifecycle's state machine, which would keep its participant."""
        super().destroy_node()
        del self._state_machine

    def _made(self) -> dict[str, set[Any]]:
        """Everything on the ROS graph that belongs to this node now."""
        kinds = ("subscription", "publisher", "timer", "service")
        return {kind: set(getattr(self, f"{kind}s")) for kind in kinds}

    def _unmake(self) -> None:
        """Destroy what `configure` put on the ROS graph."""
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
        0: no limit. Returns a function that handles at once all messages that have come already.
        """
        shown = topic.name.format(**names)

        def callback(msg: Any) -> None:
            if not (self.active or idle):
                return
            try:
                record = convert(self._checked(msg, topic, max_bytes) if max_bytes else msg)
            except MessageError as error:
                self.drop(f"{shown}/{error.reason}", str(error))
                return
            handle(*record) if type(record) is tuple else handle(record)

        raw = max_bytes > 0
        subscription = topic.subscription(self, callback, qos, events, raw=raw, **names)

        def take() -> None:
            with subscription.handle:
                while taken := subscription.handle.take_message(subscription.msg_type, raw):
                    callback(taken[0])

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

    def fault(self, name: str, text: str) -> None:
        """Report something wrong that lasts until it is `well` again."""
        if self.health.fault(name, text):
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
        msg = DiagnosticArray(status=[self.health.status(self.get_fully_qualified_name())])
        msg.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(msg)
