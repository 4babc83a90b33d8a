"""Who may move the arm at this moment: watchdogs, latches, and the filter that obeys them."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from wm_nodes.robots.arm.config import Watch
from wm_nodes.robots.arm.limits import Floats
from wm_nodes.robots.arm.safety import SafetyFilter, Setpoint

LATCHES = ("estop", "tracking")  # only a person ends these
RESYNC = 0.02  # rad: how far from the measured position a resting arm may be held
REST_PERIODS = 5  # that the same position was commanded before it is corrected
NOISE = 0.005  # rad (m): how far beyond a limit a resting joint may seem to be
NEAR = 0.05  # rad: a driver that was away is back where it was
AGREE = 5  # joint states in a row that must agree on a place that is new
STEP = 0.02  # rad (m) of noise between two
SINCE_S = 0.1
FARTHEST = 20.0  # rad (m): no joint is there
LAG_S = 0.1  # how long the arm may be too far behind before that is believed
SETTLED = 0.05  # rad/s: the measured arm stands still


class Guard:
    """Steady time only: every `now_s` comes from a clock that nobody sets.

    Stops: `estop` and `tracking` (the arm does not follow) latch until `clear`, and then only a
    plan made afterwards moves it. `camera` (silent or frozen), `driver` (silent) and `plan` (there
    is none) last as long as their cause; after each, only a plan made since then counts.
    """

    def __init__(self, filter: SafetyFilter, watch: Watch, arm_joints: int) -> None:
        self.filter, self.watch = filter, watch
        self._arm = arm_joints  # a gripper that holds something lags behind, rightly
        self.latched: dict[str, str] = {}
        self.stops: Counter[str] = Counter()
        self.stopping: tuple[str, ...] = ("driver",)
        self._driver_s = -np.inf
        self._measured: Floats | None = None
        self._claimed: Floats | None = None  # what joint states say that are not believed yet
        self._claimed_s, self._agreed = -np.inf, 0
        self._speed = np.inf
        self._seen: dict[str, float] = {}
        self._changed: dict[str, float] = {}
        self._free_s = -np.inf  # since when nothing forbids motion
        self._lag_s: float | None = None
        self._rested = 0
        self._away = True  # the driver was silent, and is not yet known to be where it was
        self._watch_tracking = watch.tracking_rad > 0

    # What is heard ------------------------------------------------------------------------------

    def saw_driver(self, position: Floats, velocity: Floats, now_s: float) -> None:
        """Joint states came: position (n,) [rad], velocity (n,) [rad/s].

        Those that say that the arm jumped are not believed unless several in a row agree: a broken
        or second publisher must neither move the arm nor count as a living driver.
        """
        if not self._believe(position, now_s):
            self.filter.interventions["implausible"] += 1
            return
        first, silent = self._measured is None, self._silent(now_s)
        self._measured, self._driver_s = position, now_s
        self._speed = float(np.abs(velocity[: self._arm]).max(initial=0.0))
        rests = self._rested >= REST_PERIODS and self._speed < SETTLED
        settled = rests and self._off() > RESYNC
        if first or ((silent or self._away) and settled):
            self.filter.start(self._held(position))
        if self._off() <= NEAR:
            self._away = False

    def _believe(self, position: Floats, now_s: float) -> bool:
        most = 2.0 * self.filter.limits.velocity
        if self._measured is not None:
            since = min(max(now_s - self._driver_s, 0.0), SINCE_S)
            if (np.abs(position - self._measured) <= most * since + STEP).all():
                self._agreed = 0
                return True
        since = min(max(now_s - self._claimed_s, 0.0), SINCE_S)
        near = (
            self._claimed is not None
            and (np.abs(position - self._claimed) <= most * since + STEP).all()
        )
        sane = (np.abs(position) < FARTHEST).all()
        self._agreed = self._agreed + 1 if near and sane else int(sane)
        self._claimed, self._claimed_s = position, now_s
        return self._agreed >= AGREE

    @property
    def measured(self) -> Floats | None:
        """Where the arm is (n,), by joint states that were believed."""
        return self._measured

    @property
    def knows(self) -> bool:
        """Has the arm ever said where it is? Before that there is nothing to command."""
        return self._measured is not None

    def saw_camera(self, name: str, now_s: float, changed: bool = True) -> None:
        """A picture came; `changed`: it is not the one before, to the pixel."""
        self._seen[name] = now_s
        if changed or name not in self._changed:
            self._changed[name] = now_s

    def expect_camera(self, name: str, now_s: float) -> None:
        """From now on this camera's silence counts."""
        self._seen.setdefault(name, now_s)
        self._changed.setdefault(name, now_s)

    def estop(self, why: str = "asked for") -> None:
        """Stop, and stay stopped until a person clears it."""
        self._latch("estop", why)

    def clear(self, now_s: float) -> None:
        """A person says that the cause is gone; plans made from now on may move the arm again."""
        self.latched.clear()
        self._free_s, self._lag_s = now_s, None

    def ignore_tracking(self) -> None:
        """A dry run commands nothing: the arm cannot follow."""
        self._watch_tracking = False

    # One period ---------------------------------------------------------------------------------

    def step(self, wanted: npt.ArrayLike | None, made_s: float, now_s: float) -> Setpoint:
        """Return what to command. wanted (n,) rad/s by a plan whose observation is of `made_s`."""
        self._check_tracking(now_s)
        stops = self._stops(now_s)
        if stops:
            self._free_s = now_s
            self.stops.update(set(stops) - set(self.stopping))
        elif wanted is None or made_s < self._free_s:
            stops = ("plan",)
            self.stops["plan"] += "plan" not in self.stopping
        self.stopping = stops
        slow = not stops and self._camera_age(now_s) > (self.watch.camera_slow_s or np.inf)
        setpoint = self.filter.step(None if stops else wanted, now_s, slow=slow)
        self._rested = self._rested + 1 if self.filter.at_rest else 0
        self._resync(now_s)
        return replace(setpoint, why=(*setpoint.why, *(f"stop/{name}" for name in stops)))

    def _stops(self, now_s: float) -> tuple[str, ...]:
        watch, names = self.watch, list(self.latched)
        if self._silent(now_s):
            self._away = True  # who knows where it is when it comes back
        if self._away:
            names.append("driver")
        if watch.camera_stop_s and self._camera_age(now_s) > watch.camera_stop_s:
            names.append("camera")
        elif watch.camera_frozen_s and self._frozen_age(now_s) > watch.camera_frozen_s:
            names.append("frozen")
        return tuple(names)

    def _silent(self, now_s: float) -> bool:
        limit = self.watch.driver_s or np.inf
        return self._measured is None or not 0 <= now_s - self._driver_s <= limit

    def _camera_age(self, now_s: float) -> float:
        return max((now_s - seen for seen in self._seen.values()), default=0.0)

    def _frozen_age(self, now_s: float) -> float:
        return max((now_s - seen for seen in self._changed.values()), default=0.0)

    def _check_tracking(self, now_s: float) -> None:
        """Latch when the arm has been too far from where it should be for a while."""
        if not self._watch_tracking or self._measured is None or self._silent(now_s):
            self._lag_s = None
            return
        off = np.abs(self._measured - self.filter.x)[: self._arm]
        if off.max() <= self.watch.tracking_rad:
            self._lag_s = None
        elif self._lag_s is None:
            self._lag_s = now_s
        elif now_s - self._lag_s > LAG_S:
            joint = self.filter.limits.joints[int(off.argmax())]
            self._latch("tracking", f"{joint} is {off.max():.2f} rad behind")

    def _latch(self, name: str, why: str) -> None:
        if name not in self.latched:
            self.stops[name] += 1
            self.latched[name] = why

    def _resync(self, now_s: float) -> None:
        """Hold a resting arm where it is, not where it should be: what is freed must not jump."""
        if not self.stopping or self._measured is None or self._silent(now_s):
            return
        if self._rested >= REST_PERIODS and self._speed < SETTLED and self._off() > RESYNC:
            held = self.filter.x.copy()
            held[: self._arm] = self._measured[: self._arm]
            self.filter.start(self._held(held))

    def _off(self) -> float:
        """Return how far the arm is from where it is commanded to be [rad]."""
        assert self._measured is not None
        return float(np.abs(self._measured - self.filter.x)[: self._arm].max(initial=0.0))

    def _held(self, measured: Floats) -> Floats:
        """Return where to hold: a sensor's noise does not take a joint beyond its limit."""
        limits = self.filter.limits
        inside = np.clip(measured, limits.low, limits.high)
        return np.where(np.abs(measured - inside) < NOISE, inside, measured)
