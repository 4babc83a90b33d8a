"""Goals for a gripper that is driven by an action: which are sent, and how they ended.

A goal is sent when the target opening has changed by more than a dead band, at most so many times
a second. The newest goal counts: older ones that are still under way are cancelled once it is
accepted. A target opening counts only while it is commanded: once commands end (emergency stop,
pause, deactivated) nothing is sent. Free of ROS: `GoalSender` is the edge to the action's client.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

RETRY_S = 1.0  # after a goal that was refused or not answered
ANSWER_S = 2.0  # longest wait for the answer to a goal
FRESH_S = 0.3  # a target opening counts for so long
SUCCEEDED = "succeeded"


@dataclass(frozen=True)
class Ended:
    """How a goal ended: status `succeeded`, `aborted` or `canceled`; stalled: by an object."""

    status: str
    stalled: bool = False


class GoalSender(Protocol):
    """An action's client. No method blocks; callbacks come in the thread that calls `tick`."""

    def ready(self) -> bool:
        """Is the action's server there?"""

    def send(
        self,
        number: int,
        position: float,
        answered: Callable[[int, bool], None],
        ended: Callable[[int, Ended], None],
    ) -> None:
        """Send a goal: a joint position [rad, m]. Calls answered(number, accepted), then ended."""

    def cancel(self, number: int) -> None:
        """Cancel a goal that was accepted; nothing happens if it has ended."""


class GripperGoals:
    """Call `set_target` from any thread, `tick` often from the client's. `fault`: text, or "".

    deadband: change of the target position from which a goal is sent [rad, m]. period_s: least time
    between two goals [s]. action: its name, for `fault`.
    """

    def __init__(
        self, sender: GoalSender, action: str, *, deadband: float, period_s: float
    ) -> None:
        self._sender, self._action = sender, action
        self._deadband, self._period_s = deadband, period_s
        self._target: tuple[float, float] | None = None  # position, and when it was set [s]
        self._goal: float | None = None  # the newest goal; None: the target position is not sent
        self._number = 0  # of the newest goal
        self._sent_s = self._refused_s = -math.inf
        self._answered = True
        self._under_way: set[int] = set()  # accepted, and not ended
        self._now_s = 0.0
        self.fault = ""

    def set_target(self, position: float, now_s: float) -> None:
        """Set the target position [rad, m] at the steady time `now_s` [s]; it expires."""
        if math.isfinite(position):
            self._target = position, now_s

    def tick(self, now_s: float) -> None:
        """Send what is due at the steady time `now_s` [s]."""
        self._now_s = now_s
        if not self._sender.ready():
            self.fault = (
                f"gripper: no server of the action {self._action}, expected one. Load and activate "
                "the gripper's controller (ros2 control list_controllers)."
            )
            self._goal, self._answered, self._refused_s = None, True, -math.inf
            self._target = None
            self._under_way.clear()
            return
        if self.fault and self._goal is None and self._refused_s == -math.inf:
            self.fault = ""  # the server is there
        if not self._answered and now_s - self._sent_s > ANSWER_S:
            self._goal, self._answered, self._refused_s = None, True, now_s
            self.fault = (
                f"gripper: the action {self._action} did not answer a goal within {ANSWER_S:g} s, "
                "expected it to be accepted. Restart the gripper's controller."
            )
        newest = self._target
        if newest is None or now_s - newest[1] > FRESH_S:
            return
        if now_s - self._sent_s < self._period_s or now_s - self._refused_s < RETRY_S:
            return
        target = newest[0]
        if self._goal is None or abs(target - self._goal) > self._deadband:
            self._number += 1
            self._goal, self._sent_s, self._answered = target, now_s, False
            self._sender.send(self._number, target, self._on_answer, self._on_end)

    def _on_answer(self, number: int, accepted: bool) -> None:
        if number != self._number:
            if accepted:  # a newer goal was sent meanwhile
                self._sender.cancel(number)
            return
        self._answered = True
        if not accepted:
            self._goal, self._refused_s = None, self._now_s
            self.fault = (
                f"gripper: the action {self._action} refused a goal, expected it to be accepted. "
                "See why in the output of the gripper's controller."
            )
            return
        self.fault, self._refused_s = "", -math.inf
        for older in sorted(self._under_way):
            self._sender.cancel(older)
        self._under_way = {number}

    def _on_end(self, number: int, end: Ended) -> None:
        self._under_way.discard(number)
        if number == self._number and end.status != SUCCEEDED and not end.stalled:
            self.fault = (
                f"gripper: the action {self._action} ended a goal as {end.status}, expected it to "
                "succeed. See why in the output of the gripper's controller."
            )
