"""The auditor: hears each command to an arm and differences them; knows no ROS and no filter."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass, field

import numpy as np

from wm_nodes.robots.arm.config import ArmConfig
from wm_nodes.robots.arm.kinematics import Kinematics
from wm_nodes.robots.arm.limits import Floats
from wm_nodes.robots.arm.trial import audit

STILL = 1e-9  # rad: a command that does not differ
NEAR_RAD = 0.03  # a command to hold where the arm is, this near to where it says it is
SILENT_S = 0.3
CONFIRM_S = 5.0
MOVING = 2e-4  # rad per period
AROUND = 12  # commands before a broken limit that are kept with it
AT_ONCE = 200  # commands that are audited together
KEPT = 20  # broken limits that are kept with their commands


@dataclass(frozen=True)
class Heard:
    """One command: its number as the auditor counts, when it came, where the arm is to be."""

    number: int
    when_s: float
    place: Floats
    anew: bool  # a path began with it


@dataclass(frozen=True)
class Broken:
    """A limit that was broken, and the commands up to it."""

    limit: str
    number: int  # of the command
    commands: tuple[Heard, ...]


@dataclass
class Auditor:
    """`violations` adds up over the whole trial; `broken` holds the first ones.

    Commands are one path as long as each follows the one before. A resting arm may be told to hold
    where it is measured (it was pushed, its driver was away, the robot node is new): a new path.
    """

    config: ArmConfig
    violations: dict[str, int] = field(default_factory=dict)
    broken: list[Broken] = field(default_factory=list)
    jumps: int = 0
    commands: int = 0
    unheard: int = 0  # commands that did not reach the auditor: nobody's jump

    def __post_init__(self) -> None:
        config = self.config
        self._hand = Kinematics(config.model, config.limits.joints, config.hand)
        self._grip = config.home[config.arm_joints :]
        self._lock = threading.Lock()  # `finish` is called from another thread
        self._path: list[Heard] = []
        self._sent = 0  # number of the last command, as its publisher counts
        self._rested = False  # who comes late may hear the middle of a motion
        self._claim: tuple[Floats, float] | None = None
        self._places: deque[Floats] = deque(maxlen=200)  # where the arm said it was
        self._recent: deque[Heard] = deque(maxlen=AT_ONCE + AROUND)

    def moving(self, now_s: float) -> bool:
        """Was the arm commanded to move just now?"""
        recent = [one.place for one in tuple(self._recent) if now_s - one.when_s < 0.15]
        return len(recent) >= 3 and float(np.abs(np.diff(recent, axis=0)).max()) > MOVING

    def hear(self, place: Floats, now_s: float, sent: int = 0) -> None:
        """Take in a command (arm joints,); sent: its number as its publisher counts, from 1."""
        self.commands += 1
        with self._lock:
            self._miss(sent)
            if place.shape != (self.config.arm_joints,) or not np.isfinite(place).all():
                self._count("malformed", 1)
                return
            if anew := bool(self._path) and self._begins_anew(place, now_s):
                self._finish()
                self._path, self._rested = [], True
            heard = Heard(self.commands, now_s, place, anew)
            self._path.append(heard)
            self._recent.append(heard)
            if len(self._path) >= AT_ONCE:
                self._finish()

    def hear_place(self, place: Floats, now_s: float) -> None:
        """Take in where the arm says it is (n,): it must soon confirm where it was told to hold."""
        self._places.append(place)
        if self._claim is None:
            return
        claimed, when = self._claim
        if any(np.abs(claimed - one[: len(claimed)]).max() < NEAR_RAD for one in self._places):
            self._claim = None
        elif now_s - when > CONFIRM_S:
            self._claim = None
            self._count("jump", 1)

    def finish(self) -> None:
        """Audit the path so far."""
        with self._lock:
            self._finish()

    def _finish(self) -> None:
        path = self._path
        if len(path) <= 3:
            return
        whole = np.array([np.concatenate([one.place, self._grip]) for one in path])
        period_s = 1.0 / self.config.rate_hz
        found = audit(self.config.limits, self._hand, whole, period_s, rested=self._rested)
        for name, count in (+found.violations).items():
            self._count(name, count)
        for name, index in found.where[: KEPT - len(self.broken)]:
            before = tuple(one for one in self._recent if one.number < path[0].number)
            until = (*before, *path[: index + 1])[-AROUND:]
            self.broken.append(Broken(name, path[index].number, until))
        self._path, self._rested = path[-3:], False  # differences go on over the cut

    def _count(self, name: str, count: int) -> None:
        self.violations[name] = self.violations.get(name, 0) + count

    def _miss(self, sent: int) -> None:
        """Audit nothing across commands that were sent and did not come.

        The machine was starved, or a new publisher spoke before it was known here.
        """
        before, self._sent = self._sent, sent
        new = not 0 < before < sent  # another publisher counts from 1 again
        missed = sent - 1 - (0 if new else before)
        if missed <= 0:
            return
        self.unheard += missed
        self._finish()
        self._path, self._rested = [], False

    def _begins_anew(self, place: Floats, now_s: float) -> bool:
        """Is this the command to hold where a resting arm is, and not the next of a motion?"""
        before = [one.place for one in self._path[-3:]]
        whole = len(before) == 3
        if not whole and not self._rested:
            return False
        before = [before[0]] * (3 - len(before)) + before
        jerk = np.abs(place - 3 * before[2] + 3 * before[1] - before[0]) * self.config.rate_hz**3
        if (jerk <= self.config.limits.jerk[: len(place)] * (1 + 1e-9)).all():
            return False
        silent = now_s - self._recent[-1].when_s > SILENT_S  # driver or robot node was away
        resting = whole and all(np.abs(one - before[-1]).max() < STILL for one in before)
        if not (silent or resting):
            return False
        self.jumps += 1
        self._claim = place, now_s
        return True
