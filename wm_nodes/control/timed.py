"""A simulator in real time: one agent step per period, whether a plan is there or not."""

from __future__ import annotations

import time
from collections.abc import Callable

from wm_nodes.control.active_plan import ActivePlan
from wm_nodes.control.base import ControlOutput
from wm_nodes.control.realtime import HOLD
from wm_nodes.control.simulator import SimulatorControl
from wm_nodes.episodes.runner import EpisodeRunner
from wm_nodes.records import Plan, Transition


class TimedControl(SimulatorControl):
    """Executes the action that is due in the newest plan; without one the robot holds still.

    period_s: of the agent's steps. clock: steady time [s], of `plan` too.
    """

    def __init__(
        self,
        runner: EpisodeRunner,
        output: ControlOutput,
        plan: ActivePlan,
        period_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(runner, output)
        self.tick_s, self._plan, self._clock = period_s, plan, clock

    def tick(self) -> None:
        if not self._running:
            return
        due = "stopped" if self._held else self._plan.due(self._clock())
        if isinstance(due, str):
            self._output.report_fault("plan", due)
            self._execute(self._runner.robot.holding(), HOLD)
            return
        self._output.clear_fault("plan", "plans are received again")
        self._execute(due.action, due.origin)

    def accept(self, plan: Plan) -> tuple[str, str]:
        now_s = self._clock()
        reason, text = self._plan.accept(plan, now_s)
        if not reason:
            self._output.diagnostics.record_latency(self._plan.age_s(now_s))
        return reason, text

    def _publish(self, transition: Transition) -> None:
        self._plan.observed(transition.step.stamp_ns, transition.observed_s, 0.0)
        self._output.publish(transition)

    def _on_episode(self, first: Transition) -> None:
        self._plan.begin(first.step.stamp_ns)

    def _discard_plans(self, *, emergency: bool) -> None:
        self._plan.invalidate(self._clock())
