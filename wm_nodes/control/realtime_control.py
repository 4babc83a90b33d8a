"""A robot with a control period of its own, as the robot node runs it: the control thread, the
episodes, the latches on disk, and what the operator calls."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NoAnswer
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wm_nodes.control.active_plan import ActivePlan
from wm_nodes.control.base import Control, ControlOutput
from wm_nodes.control.latch_writer import LatchWriter
from wm_nodes.control.periodic_thread import SWITCH_S, PeriodicThread, lock_memory, realtime_allowed
from wm_nodes.control.realtime import RealtimeLoop
from wm_nodes.control.safety_record import SafetyRecord
from wm_nodes.control.states import State
from wm_nodes.episodes.runner import EpisodeRunner
from wm_nodes.errors import UserError
from wm_nodes.records import Answer, Plan, Transition
from wm_nodes.robots.robot import RealtimeRobot

KEPT = 4096  # newest latencies
STOP_S = 2.4  # to come to rest at the end: the longest stop takes 2.2 s
ESTOP_S = 0.3  # for the control loop to execute an emergency stop
AT_REST = 3  # periods at rest before the thread ends, so that the last commands are equal
REPORT_S = 0.05  # between two reports
ANSWER_S = 1.0  # for the control loop to answer a request
# Faults that only the operator can repair; latches are others.
BLOCKING = frozenset(
    "bus camera_clock controller controller_settings driver driver_unknown joint_sources "
    "wrench_sources".split()
)
NO_REALTIME = (
    "no real-time priority or locked memory: other programs can delay the control loop. Allow both "
    "in /etc/security/limits.conf: `<user> - rtprio 20`, `<user> - memlock unlimited`; log in again"
)
NOT_RUNNING = "the control loop does not run: nothing was done"


@dataclass(frozen=True)
class RealtimeSettings:
    """home, confirm_home: see RealtimeLoop. await_planner_s: longest wait for a planner before an
    episode starts [s]. require_realtime: real-time priority and locked memory must be allowed.
    owns_process: the process runs nothing else, so all of its threads and memory are real-time.
    """

    record: Path
    home: bool = True
    confirm_home: bool = False
    await_planner_s: float = 0.0
    require_realtime: bool = False
    owns_process: bool = False


class RealtimeControl(Control):
    """Runs a RealtimeLoop in a thread of its own.

    The control thread calls the loop and then `wake` (set by the owner, who calls `on_wake` in the
    executor's thread): that begins and continues episodes and publishes. `request` and `estop` may
    be called from any thread. Raises UserError if real time is required and not allowed.
    """

    tick_s = REPORT_S

    def __init__(
        self,
        runner: EpisodeRunner,
        robot: RealtimeRobot,
        plan: ActivePlan,
        output: ControlOutput,
        settings: RealtimeSettings,
    ) -> None:
        self._runner, self._robot, self._plan = runner, robot, plan
        self._output, self._settings = output, settings
        self.realtime = realtime_allowed() and (not settings.owns_process or lock_memory())
        if settings.require_realtime and not self.realtime:
            raise UserError(
                f"require_realtime: {NO_REALTIME}. To run without it: require_realtime:=false."
            )
        record = SafetyRecord(settings.record)
        before = record.load()
        self.loop = RealtimeLoop(
            robot,
            plan,
            home=settings.home,
            confirm_home=settings.confirm_home,
            restarted=before.running or bool(before.latched),
            on_latch=lambda: self._writer.notify(),
        )
        for name, why in before.latched.items():
            robot.latch(name, why)
        self._writer = LatchWriter(record, self.loop.latched, output)
        self.wake: Callable[[], None] = lambda: None
        self._ages: deque[float] = deque(maxlen=KEPT)
        self._reported: set[str] = set()
        self._thread: PeriodicThread | None = None
        self._ready_s = 0.0

    # Life cycle ---------------------------------------------------------------------------------

    def start(self) -> None:
        """Prepare the next episode and start the control thread."""
        sys.setswitchinterval(SWITCH_S)
        self._ready_s = time.monotonic()
        if not self._prepare():
            self._output.end_run()
            return
        self._writer.start()
        self._thread = PeriodicThread(
            self._robot.tick_s,
            self._on_period,
            alone=self._settings.owns_process,
            failed=self._robot.halt,
        )
        self._thread.start()

    def stop(self) -> None:
        """Come to rest while the loop runs, then end it; standing still is the last command."""
        thread = self._thread
        if thread is None:
            return
        with self.loop.lock:
            self.loop.end()
        end = time.monotonic() + STOP_S
        while time.monotonic() < end and thread.error is None and self.loop.moving:
            time.sleep(self._robot.tick_s)
        time.sleep(AT_REST * self._robot.tick_s)
        thread.stop()
        self._robot.halt()
        self._thread = None
        self._writer.stop(running=thread.error is not None or self.loop.moving)

    @property
    def alive(self) -> bool:
        """Does the control loop run?"""
        thread = self._thread  # another thread may remove it
        return thread is not None and thread.error is None

    # The control thread -------------------------------------------------------------------------

    def _on_period(self) -> None:
        if self.loop.tick():
            self.wake()
        if self.loop.plan_age_s is not None:
            self._ages.append(self.loop.plan_age_s)

    # The executor's thread ----------------------------------------------------------------------

    def accept(self, plan: Plan) -> tuple[str, str]:
        now_s = time.monotonic()
        reason, text = self._plan.accept(plan, now_s)
        if not reason:
            self._output.diagnostics.record_latency(self._plan.age_s(now_s))
        return reason, text

    def on_wake(self) -> None:
        """Continue the episode after a complete agent step, or begin the prepared one."""
        if self.loop.acting:
            self._continue()
        elif self.loop.ready and self._has_planner():
            self._begin()

    def _begin(self) -> None:
        with self.loop.lock:
            first = self._runner.begin()
            if first is not None:
                self.loop.begin(first.step.stamp_ns)
        if first is not None:
            self._publish(first)

    def _continue(self) -> None:
        if not self._robot.complete():
            return
        with self.loop.lock:
            transition = self._runner.execute(self._robot.holding(), self.loop.origin)
        self._publish(transition)
        if not transition.step.is_last:
            return
        self._output.save_counts()
        self._ready_s = time.monotonic()
        if not self._prepare():
            with self.loop.lock:
                self.loop.end()
            self._output.end_run()

    def _prepare(self) -> bool:
        """Choose the next episode and bring the robot there; False: the run is over."""
        with self.loop.lock:
            episode = self._runner.prepare()
            if episode is not None:
                self.loop.prepare(episode.seed)
        return episode is not None

    def _publish(self, transition: Transition) -> None:
        """Publish an observation; plans that answer it count from when its images were taken."""
        age_s = self._robot.image_age_s() - (time.monotonic() - transition.observed_s)
        self._plan.observed(transition.step.stamp_ns, transition.observed_s, max(age_s, 0.0))
        self._output.publish(transition)

    def _has_planner(self) -> bool:
        """Is there a planner, or was one waited for long enough?"""
        waited_s = time.monotonic() - self._ready_s
        return waited_s >= self._settings.await_planner_s or self._output.has_planner()

    def tick(self) -> None:
        """Report the faults of the robot; raise what has ended the control thread."""
        thread = self._thread
        if thread is None:
            return
        if thread.error is not None:
            raise thread.error
        faults = self._faults()
        for name in self._reported - set(faults):
            self._output.clear_fault(name, f"over: {name}")
        latched = self.loop.latched()
        for name, text in faults.items():
            self._output.report_fault(name, text, error=name in BLOCKING or name in latched)
        self._reported = set(faults)
        self._output.diagnostics.facts.update(
            {**self._robot.facts(), **thread.figures(), **self._facts()}
        )

    def _faults(self) -> dict[str, str]:
        faults = dict(self._robot.faults())
        if waiting := self.loop.waiting_for():
            faults["waiting"] = waiting
        if self.loop.acting and self.loop.due_text:
            faults["plan"] = self.loop.due_text
        elif self.loop.state is not State.ACTING:
            faults.pop("plan", None)
        if not self.realtime:
            faults["realtime"] = NO_REALTIME
        return faults

    def _facts(self) -> dict[str, str]:
        facts = {"state": self.loop.state.value}
        if self._ages:
            p50, p99 = np.percentile(self._ages, (50, 99)) * 1e3
            facts["camera_to_command_p50_ms"] = f"{p50:.1f}"
            facts["camera_to_command_p99_ms"] = f"{p99:.1f}"
        return facts

    # The operator's calls, from any thread ------------------------------------------------------

    def request(self, name: str, value: object = None) -> Answer:
        """Let the control loop execute a call; waits for its answer."""
        if not self.alive:
            return Answer(False, NOT_RUNNING)
        future: Future[Answer] = self.loop.ask(name, value)
        try:
            return future.result(ANSWER_S)
        except NoAnswer:
            future.cancel()  # it must not be executed later
            return Answer(False, f"the control loop did not answer within {ANSWER_S:g} s")

    def estop(self, *, on: bool) -> Answer:
        """Stop and latch, and return when the latch is on disk; on=False: clear the latches."""
        return self._stop_now() if on else self._clear()

    def _stop_now(self) -> Answer:
        self.loop.estop()
        failure = self._writer.store(running=True)
        end = time.monotonic() + ESTOP_S
        while self.loop.estop_pending and self.alive and time.monotonic() < end:
            time.sleep(0.2 * self._robot.tick_s)
        if self.loop.estop_pending:
            self._robot.halt()
            failure = "the control loop does not run: use the arm's own emergency stop"
        return Answer(not failure, f"latched, but {failure}" if failure else "stopped and latched")

    def _clear(self) -> Answer:
        answer = self.request("clear")
        failure = self._writer.store(running=self._thread is not None) if answer.done else ""
        return Answer(answer.done, f"{answer.text}, but {failure}" if failure else answer.text)
