"""Is the arm where it is commanded to be? Joints that stand still, and lags that last."""

from __future__ import annotations

from wm_nodes.robots.arm.safety.following import FollowWatch
from wm_nodes.robots.arm.safety.limits import Floats
from wm_nodes.robots.arm.safety.path_alignment import PathAlignment
from wm_nodes.robots.arm.safety.safety_filter import SafetyFilter
from wm_nodes.robots.arm.safety.speed_scale import Slowdown

STUCK_RAD = 0.05  # an arm that stands so far behind its command does not follow
LAG_S = 0.1  # how long the arm may be too far behind before it counts as not following
SLOWER_S = 0.7  # beside the longest stop: until a slower driver's lag is caught up


class TrackingWatch:
    """Finds an arm that does not follow. tracking_rad: the lag that may not last; 0: not watched.

    `following`: commands and measurements of the last moments. `slowdown`: for how long a lag is
    that of a driver that has slowed down.
    """

    def __init__(
        self, filter: SafetyFilter, path: PathAlignment, arm_joints: int, tracking_rad: float
    ) -> None:
        self._filter, self._path, self._tracking_rad = filter, path, tracking_rad
        self.following = FollowWatch(arm_joints)
        self.slowdown = Slowdown(filter.longest_stop_s + SLOWER_S)
        self._lag_s: float | None = None  # since when the arm is too far behind

    def forget_lag(self) -> None:
        self._lag_s = None

    def problem(self, measured: Floats | None, stands: bool, now_s: float) -> str:
        """Return why the arm counts as not following now, or "".

        measured (n,): None if it must not be checked; stands: it has been at rest for a while.
        """
        if measured is None or not self._tracking_rad or self.slowdown.lasts(now_s):
            self._lag_s = None
            return ""
        path, offsets = self._path, self._path.offsets(measured)
        joint, text = self.following.standing_joint(), ""
        if joint is not None:
            name = self._filter.limits.joints[joint]
            text = f"{name} stands, {offsets[joint]:.2f} rad behind"
        behind = f"{path.offset(measured):.2f} rad behind"
        # at velocity 0 no place is commanded
        if (path.positions or not self._filter.at_rest) and stands and self._stuck(offsets):
            return text or f"{path.farthest(measured)} stands, {behind}"
        if path.offset(measured) <= self._tracking_rad:
            self._lag_s = None
        elif self._lag_s is None:
            self._lag_s = now_s
        elif now_s - self._lag_s > LAG_S:
            return text or f"{path.farthest(measured)} is {behind}"
        return text

    def _stuck(self, offsets: Floats) -> bool:
        """Is a joint too far behind, also if the driver takes commands late?"""
        late = self.following.lag_of_delayed() > 0.5 * STUCK_RAD
        return bool(((offsets > STUCK_RAD) & late).any())
