"""Promise: the arm itself is not faster than its limits, and stands still when it must rest."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

import numpy as np

from wm_nodes.checks.faults.audit.record import AROUND, AuditRecord, BrokenLimit
from wm_nodes.robots.arm.config.arm_config import ArmConfig
from wm_nodes.robots.arm.safety.limits import Floats

NOISE_SIGMAS = 10.0  # of a difference of two measurements: 7 of each
SPEED_SAMPLES = 3  # measurements between the two that a speed is taken from
SPEED_SHARE = 1.25  # of the velocity limit, that the arm itself may reach
SETTLE_S = 1.5  # until an arm that is expected to rest must stand
MOVED_RAD = 0.02  # a standing arm that moved by more was moved
TRACE_S, TRACE = 2.5, 25  # what is noted of a joint that moved: span [s], measurements
MEASURED = 1000  # measurements that are kept of each source
Samples = deque[tuple[float, Floats]]  # times [s] and positions of the arm's joints [rad]


class MeasuredMotion:
    """Measured positions of each source. Violations:

    - true_speed: the measured arm moved faster than SPEED_SHARE of a velocity limit
    - uncaused: the measured arm moved while `expect_rest` held

    noise_rad: standard deviation of a measured position. error_s: bound of the error of a stamp.
    """

    def __init__(
        self,
        config: ArmConfig,
        noise_rad: float,
        error_s: Callable[[float], float],
        record: AuditRecord,
    ) -> None:
        self._names, self._arm = config.limits.joints, config.arm_joints
        self._velocity = SPEED_SHARE * config.limits.velocity[: self._arm]
        self.noise_rad, self._error_s, self._record = noise_rad, error_s, record
        self._samples: dict[str, Samples] = {}
        self._rest_s, self._move_s = np.inf, np.inf  # the arm must rest between these times
        self._stood: dict[str, Floats] = {}

    def take(self, place: Floats, stamp_s: float, source: str) -> bool:
        """Take in measured positions of the arm's joints; False: older than the last ones."""
        samples = self._samples.setdefault(source, deque(maxlen=MEASURED))
        if samples and stamp_s <= samples[-1][0]:
            return False  # the driver has begun to send older states
        samples.append((stamp_s, place))
        self._check_speed(samples)
        self._check_rest(place, stamp_s, source)
        return True

    def between(self, from_s: float, until_s: float) -> Iterator[list[Floats]]:
        """Yield the positions of each source that has some in a span of time."""
        for samples in self._samples.values():
            places = [place for when_s, place in samples if from_s <= when_s <= until_s]
            if places:
                yield places

    def noise(self) -> float:
        """Return a bound of the noise of the difference of two measurements [rad]."""
        return NOISE_SIGMAS * self.noise_rad

    def expect_rest(self, now_s: float) -> None:
        """Forbid motion of the arm from now on, except for coming to rest within SETTLE_S."""
        self._rest_s, self._move_s, self._stood = now_s, np.inf, {}

    def may_move(self, now_s: float) -> None:
        """Allow motion of the arm again."""
        self._move_s = now_s

    def _check_speed(self, samples: Samples) -> None:
        if len(samples) <= SPEED_SAMPLES:
            return
        (then_s, before), (now_s, place) = samples[-1 - SPEED_SAMPLES], samples[-1]
        allowed = self._velocity * (now_s - then_s + 2 * self._error_s(now_s)) + self.noise()
        self._record.count("true_speed", int((np.abs(place - before) > allowed).sum()))

    def _check_rest(self, place: Floats, stamp_s: float, source: str) -> None:
        if not self._rest_s + SETTLE_S <= stamp_s < self._move_s:
            return
        stood = self._stood.setdefault(source, place)
        if (np.abs(place - stood) > MOVED_RAD + self.noise()).any():
            self._record.count("uncaused")
            self._stood[source] = place
            self._keep_uncaused(place - stood, stamp_s, self._samples[source])

    def _keep_uncaused(self, moved: Floats, now_s: float, samples: Samples) -> None:
        if not self._record.room:
            return
        times = np.array([when_s for when_s, _ in samples if when_s >= self._rest_s])
        silent_s = float(np.diff(times).max(initial=0.0))
        joint = int(np.abs(moved).argmax())
        trace = [(when_s, place[joint]) for when_s, place in samples if when_s > now_s - TRACE_S]
        shown = trace[:: -max(1, len(trace) // TRACE)][::-1]  # the newest among them
        recent = tuple(self._record.recent)[-AROUND:]
        silent = f"{now_s - recent[-1].when_s:.3f} s before" if recent else "none"
        note = (
            f"{self._names[joint]} moved {moved[joint]:+.3f} rad until "
            f"{now_s - self._rest_s:.3f} s after it had to rest; longest time between measurements "
            f"since then {silent_s:.3f} s; last command: {silent}; measured [s, rad]: "
            + ", ".join(f"{when_s - now_s:.2f} {place:.4f}" for when_s, place in shown)
        )
        number = recent[-1].number if recent else 0
        self._record.broken.append(BrokenLimit("uncaused", number, recent, note))
