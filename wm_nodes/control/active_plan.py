"""The plan that a robot follows in real time: which plans count, and which action is due now.

Everything is measured on the steady clock. A plan answers one observation of this robot, named by
its stamp, and its age counts from the moment of that observation: neither a repeated message nor a
clock that stands or jumps makes a plan newer.
"""

from __future__ import annotations

from dataclasses import dataclass

from wm_nodes.control.plans import due_action
from wm_nodes.records import Origin, Plan, Vector

KEPT = 512  # newest observations whose plans are still accepted


@dataclass(frozen=True)
class Due:
    """The action (A,) that is due now; its plan's origin; when that plan's observation was made, by
    the steady clock [s], and how old its images were then [s]."""

    action: Vector
    origin: Origin
    observed_s: float
    image_age_s: float


class ActivePlan:
    """Holds the newest plan of this episode, and reads it at any time: each point is held until the
    next one is due, so that a plan may have another period than the robot.

    period_s: the robot's control period (one agent step). max_age_s: how long the last action of a
    plan is held after its end. max_plan_s: time after its observation at which any plan ends.
    """

    def __init__(self, period_s: float, max_age_s: float, max_plan_s: float) -> None:
        self._period_s, self._max_age_s, self._max_plan_s = period_s, max_age_s, max_plan_s
        self._observed: dict[int, tuple[float, float]] = {}
        self._newest_ns: int | None = None  # of the plan, or of the episode's first observation
        # With the time of its observation and the age of that one's images.
        self._plan: tuple[Plan, float, float] | None = None
        self._valid_from_s = float("-inf")

    def observed(self, stamp_ns: int, now_s: float, image_age_s: float) -> None:
        """An observation is published. now_s: steady time; image_age_s: of its oldest image."""
        if stamp_ns in self._observed:
            return  # a repeated stamp never makes a plan newer
        self._observed[stamp_ns] = now_s, image_age_s
        while len(self._observed) > KEPT:
            del self._observed[next(iter(self._observed))]

    def begin(self, stamp_ns: int) -> None:
        """An episode begins with this observation: older plans do not count."""
        self._plan, self._newest_ns = None, stamp_ns

    def end(self) -> None:
        """No episode: no plan counts."""
        self._plan, self._newest_ns = None, None

    def invalidate(self, now_s: float) -> None:
        """Only plans of observations made after now count."""
        self._plan, self._valid_from_s = None, now_s

    def accept(self, plan: Plan, now_s: float) -> tuple[str, str]:
        """Follow this plan from now on; returns ("", ""), or (reason, text) why it is dropped."""
        if self._newest_ns is None:
            return (
                "phase",
                "plan: got one between episodes, expected it after an episode's first observation",
            )
        if plan.stamp_ns not in self._observed:
            return (
                "stamp",
                f"plan: got stamp {plan.stamp_ns}, expected that of one of the newest {KEPT} "
                "observations. Give a plan the stamp of the observation (topic step) it answers",
            )
        if plan.stamp_ns < self._newest_ns:
            return "old", "plan: got an older observation than that of the plan being followed"
        if plan.period_s > self._max_plan_s:
            return (
                "spacing",
                f"plan: got points {plan.period_s:g} s apart, expected at most max_plan_s, "
                f"{self._max_plan_s:g} s. Send one point for each control period",
            )
        observed_s, image_age_s = self._observed[plan.stamp_ns]
        if observed_s < self._valid_from_s:
            return "before-stop", "plan: its observation was made before the last stop or release"
        if now_s - observed_s > self._max_plan_s:
            return "late", f"plan: its observation is older than {self._max_plan_s:g} s"
        self._plan, self._newest_ns = (plan, observed_s, image_age_s), plan.stamp_ns
        return "", ""

    def age_s(self, now_s: float) -> float:
        """Return how old the plan's observation is [s]; 0 without a plan."""
        followed = self._plan  # another thread may take it away
        return now_s - followed[1] if followed else 0.0

    def due(self, now_s: float) -> Due | str:
        """Return the action for the steady time `now_s`, or why there is none."""
        followed = self._plan  # another thread may take it away
        if followed is None:
            return "no plan yet: holding"
        plan, observed_s, image_age_s = followed
        age_s = now_s - observed_s
        if age_s > self._max_plan_s:
            return f"the plan is followed for {self._max_plan_s:g} s at most: holding"
        action, overdue_s = due_action(plan, age_s, self._period_s)
        if overdue_s > self._max_age_s:
            return "the plan is stale: holding"
        return Due(action, plan.origin, observed_s, image_age_s)
