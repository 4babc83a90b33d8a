"""The topic /clock: what is wrong with it where a node's time comes from it, and its publisher."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from rclpy.clock import JumpThreshold, ROSClock, TimeJump
from rclpy.duration import Duration
from rosgraph_msgs.msg import Clock

from wm_nodes.ros.messages import SECOND_NS, to_time

if TYPE_CHECKING:
    from wm_nodes.ros.node import ManagedNode

STANDS_S = 2.0  # a clock that does not move for so long stands; lock-step ones wait for plans
TOPIC, DEPTH = "/clock", 10


class ClockWatch:
    """Names a /clock that is missing, stands or goes back. Without use_sim_time all is well."""

    def __init__(self, node: ManagedNode[Any]) -> None:
        clock = node.get_clock()
        assert isinstance(clock, ROSClock), "a node's clock follows use_sim_time"
        self._node, self._clock = node, clock
        self._last_ns, self._moved_s = 0, time.monotonic()
        self.makes_time = False  # this node publishes /clock itself
        back = JumpThreshold(
            min_forward=None, min_backward=Duration(nanoseconds=-1), on_clock_change=False
        )
        self._jumps = self._clock.create_jump_callback(back, post_callback=self._went_back)

    @property
    def text(self) -> str:
        """Return what is wrong now; "": nothing."""
        now_ns, now_s = int(self._clock.now().nanoseconds), time.monotonic()
        moved = now_ns != self._last_ns
        if moved or self.makes_time or not self._clock.ros_time_is_active:
            self._last_ns, self._moved_s = now_ns, now_s
            return ""
        stands_s = now_s - self._moved_s
        if stands_s < STANDS_S:
            return ""
        what = f"standing at {now_ns / SECOND_NS:.3f} s" if now_ns else "no time at all"
        return (
            f"{TOPIC}: got {what} for {stands_s:.0f} s, expected it to advance (use_sim_time is "
            "true). Start what publishes it or let it go on, or set use_sim_time to false."
        )

    def close(self) -> None:
        self._jumps.unregister()

    def report(self) -> None:
        """Report a standing clock as fault `clock`."""
        if text := self.text:
            self._node.report_fault("clock", text)
        else:
            self._node.clear_fault("clock", f"{TOPIC} advances again")

    def _went_back(self, jump: TimeJump) -> None:
        self._node.diagnostics.faults["clock_back"] += 1
        self._node.warn(
            "clock_back",
            f"{TOPIC}: went back by {-jump.delta.nanoseconds / SECOND_NS:.3f} s, expected it to "
            "advance. End its other publishers, or start the nodes again with the simulation.",
        )


class ClockPublisher:
    """/clock of a simulator whose node has use_sim_time; silent without."""

    def __init__(self, node: ManagedNode[Any]) -> None:
        self.on = bool(node.get_parameter("use_sim_time").value)
        self._publisher = node.create_publisher(Clock, TOPIC, DEPTH) if self.on else None
        node.clock_watch.makes_time = self.on

    def publish(self, now_ns: int) -> None:
        """Publish the simulated time [ns]."""
        if self._publisher is not None:
            self._publisher.publish(Clock(clock=to_time(now_ns)))
