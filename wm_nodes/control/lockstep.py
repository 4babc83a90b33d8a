"""Lock-step: a simulator waits for the plan of its observation and executes its first action.
Nothing depends on time, so equal seeds and plans give equal runs."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from wm_nodes.control.base import ControlOutput
from wm_nodes.control.simulator import SimulatorControl
from wm_nodes.episodes.runner import EpisodeRunner
from wm_nodes.records import Plan, Transition

TICK_S = 0.05


@dataclass(frozen=True)
class LockstepSettings:
    """Times [s] and limits of lock-step; 0: none, where not said otherwise.

    retry_s: an unanswered observation is published again after this time (> 0). timeout_s: a
    missing plan is reported after this time (> 0). await_recorder_s: longest wait for the recorder
    at an episode's start. pace_hz: most agent steps per second. ahead: most agent steps that are
    executed before the trainer has processed them.
    """

    retry_s: float = 0.5
    timeout_s: float = 30.0
    await_recorder_s: float = 0.0
    pace_hz: float = 0.0
    ahead: int = 0


class LockstepControl(SimulatorControl):
    """Executes the first action of the plan that answers the newest observation.

    A plan waits while the operator has paused or stopped the simulator, until the recorder has the
    episode's first observation, and within the limits of `settings`. clock: steady time [s].
    """

    tick_s = TICK_S

    def __init__(
        self,
        runner: EpisodeRunner,
        output: ControlOutput,
        settings: LockstepSettings,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        super().__init__(runner, output)
        self._settings, self._clock = settings, clock
        self._plan: Plan | None = None  # the answer to the newest observation
        self._waiting = False  # the newest observation is not executed yet
        self._recorded_ns = -1  # stamp that the recorder has confirmed
        self._unrecorded = False  # the recorder did not confirm: it is not waited for
        self._learned_steps: int | None = None  # None: no trainer yet
        self._first_s = self._published_s = self._reported_s = 0.0

    def start(self) -> None:
        self._unrecorded = False
        super().start()

    def tick(self) -> None:
        """Publish an unanswered observation again; execute a plan that had to wait."""
        if not (self._running and self._waiting) or self._held:
            return
        now = self._clock()
        if self._plan is not None:
            self._try_execute()
        newest = self._runner.newest
        if self._waiting and newest and now - self._published_s >= self._settings.retry_s:
            self._published_s = self._clock()
            self._output.publish(newest, repeated=True)
        if self._plan is None and now - self._reported_s >= self._settings.timeout_s:
            self._reported_s = now
            text = f"no plan for {now - self._first_s:.0f} s: the observation is published again"
            self._output.report_fault("plan", text)

    def accept(self, plan: Plan) -> tuple[str, str]:
        """Execute a plan for the newest observation; others are dropped ("stamp")."""
        newest = self._runner.newest
        if newest is None or plan.stamp_ns != newest.step.stamp_ns:
            return "stamp", ""  # common: a repeated observation is answered twice
        if not (self._running and self._waiting):
            return "", ""
        self._output.clear_fault("plan", "plans are received again")
        if self._plan is None:
            self._output.diagnostics.record_latency(self._clock() - self._first_s)
            self._plan = plan
        self._try_execute()
        return "", ""

    def confirm_recorded(self, stamp_ns: int) -> None:
        """The recorder has all parts of the observation of this stamp."""
        self._recorded_ns, self._unrecorded = stamp_ns, False
        self._output.clear_fault("recorder", "the recorder answers")
        if self._waiting:
            self._try_execute()

    def set_learned_steps(self, count: int) -> None:
        """The trainer has processed this many agent steps."""
        self._learned_steps = count
        if self._waiting:
            self._try_execute()

    def _publish(self, transition: Transition) -> None:
        self._first_s = self._published_s = self._reported_s = self._clock()
        self._output.publish(transition)
        self._waiting = not transition.step.is_last

    def _on_episode(self, first: Transition) -> None:
        self._plan = None

    def _discard_plans(self, *, emergency: bool) -> None:
        if emergency:
            self._plan = None

    def _try_execute(self) -> None:
        """Execute the plan unless something holds it back; `tick` tries again."""
        ready = self._running and self._plan is not None and not self._held
        if not ready or self._must_wait():
            return
        plan, self._plan = self._plan, None
        assert plan is not None
        self._execute(plan.actions[0], plan.origin)

    def _must_wait(self) -> bool:
        elapsed = self._clock() - self._first_s
        pace = self._settings.pace_hz
        if (pace and elapsed < 1.0 / pace) or self._is_ahead():
            return True
        return not self._recorder_ready(elapsed)

    def _is_ahead(self) -> bool:
        """Has the robot executed more than the trainer allows? False without a trainer."""
        ahead, newest = self._settings.ahead, self._runner.newest
        if not (ahead and newest and newest.step.explore) or self._learned_steps is None:
            return False
        over = self._runner.counts.decisions > self._learned_steps + ahead
        return over and self._output.has_trainer()

    def _recorder_ready(self, elapsed_s: float) -> bool:
        """May the newest observation be answered, as far as the recorder is concerned?

        At an episode's start the recorder must confirm. Once it has not done so within
        await_recorder_s, episodes begin without it until it answers again.
        """
        newest, longest = self._runner.newest, self._settings.await_recorder_s
        if not longest or not newest or not newest.step.is_first:
            return True
        if self._recorded_ns == newest.step.stamp_ns:
            return True
        if elapsed_s < longest and not self._unrecorded:
            return False
        self._unrecorded = True
        self._output.report_fault("recorder", "the recorder does not answer: not recording")
        return True
