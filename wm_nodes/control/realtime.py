"""The control loop in real time: one call of `tick` in each control period.

Only the loop moves the robot: for a plan that is newer than the last stop, pause, release or
restart, or for an explicit call of the operator. Calls of other threads are requests: the loop
executes them in its next period, or answers why it does not.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from threading import Lock

from wm_nodes.control.active_plan import ActivePlan
from wm_nodes.control.driver_work import DriverWork
from wm_nodes.control.preparation import Preparation
from wm_nodes.control.requests import Requests
from wm_nodes.control.states import MOVING, Conditions, State, next_state
from wm_nodes.records import Answer, DriverStep, Origin
from wm_nodes.robots.robot import RealtimeRobot

ESTOP = "called by the operator"
HOLD = Origin("robot", "hold")  # the source of a step without a plan: not a demonstration


@dataclass
class Permission:
    """The operator's permission to move; without it, `needs` says which call grants it."""

    needs: str = ""

    @property
    def granted(self) -> bool:
        return not self.needs


class RealtimeLoop:
    """Runs a robot: `tick` in the control thread, everything else from any thread.

    home: go to the home pose before each episode. confirm_home: only when the operator calls
    `go_home`. restarted: an earlier process of this run did not end cleanly, so nothing moves
    before the operator's call. on_latch: called (in the control thread) when the latches have
    changed. clock: steady time [s].
    """

    def __init__(
        self,
        robot: RealtimeRobot,
        plan: ActivePlan,
        *,
        home: bool = True,
        confirm_home: bool = False,
        restarted: bool = False,
        on_latch: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.robot, self.plan, self.lock = robot, plan, Lock()
        self._clock, self._on_latch = clock, on_latch
        self.state = State.NO_DRIVER
        self.permission = Permission("the node was restarted: call resume" if restarted else "")
        self.origin = HOLD  # of the step under preparation
        self.due_text = ""  # why no action is due, while acting
        self.plan_age_s: float | None = None  # age of the images behind the action of this period
        self._driver = DriverWork(robot)
        self._requests = Requests()
        self._preparation = Preparation(home=home, confirm_home=confirm_home)
        self._estop = False
        self._latches: tuple[str, ...] = ()

    # Requests of other threads ------------------------------------------------------------------

    def estop(self) -> None:
        """Stop now and latch. Takes effect in the next period, and cannot fail."""
        self._estop = True

    @property
    def estop_pending(self) -> bool:
        """Is an emergency stop called that the control thread has not executed yet?"""
        return self._estop

    def latched(self) -> dict[str, str]:
        """Return everything that is latched, or will be in the next period: name -> why."""
        called = {"estop": ESTOP} if self._estop else {}
        return {**called, **self.robot.latched()}

    def ask(self, name: str, value: object = None) -> Future[Answer]:
        """Request pause, resume, clear, go_home or reset; the future has the answer.

        speed_scale: value is the scale. driver: value is a DriverStep.
        """
        return self._requests.put(name, value)

    # Episodes, under `lock` ---------------------------------------------------------------------

    def prepare(self, seed: int) -> None:
        """Bring the robot to where the episode of this seed can begin."""
        self.plan.end()
        self._preparation.prepare()
        self.robot.prepare(seed)

    @property
    def ready(self) -> bool:
        """May the prepared episode begin?"""
        permitted = self.permission.granted and not self._driver.busy
        standing = self.state is State.STANDING and permitted
        prepared = self._preparation.between and self._preparation.is_home
        return standing and prepared and not self.robot.waiting_for()

    def begin(self, stamp_ns: int) -> None:
        """The prepared episode begins with the observation of this stamp."""
        self.plan.begin(stamp_ns)
        self._preparation.begin()

    def end(self) -> None:
        """No episode follows: come to rest and stay there."""
        self.plan.end()
        self._preparation.end()

    @property
    def acting(self) -> bool:
        """Is an episode under preparation?"""
        return self._preparation.acting

    def waiting_for(self) -> str:
        """Return why nothing moves, or "" while it may."""
        if not self.permission.granted:
            return self.permission.needs
        if self._driver.busy:
            return self._driver.busy
        preparation = self._preparation
        if preparation.acting or preparation.ending:
            return ""
        if self.state is State.STANDING and not preparation.is_home and preparation.needs_call:
            return "call go_home: the robot goes to its home pose"
        return self.robot.waiting_for() or (
            "" if preparation.is_home else "the robot moves to its home pose"
        )

    # The control thread -------------------------------------------------------------------------

    def tick(self) -> bool:
        """Execute one control period. True: an agent step is complete, or an episode may begin."""
        with self.lock:
            now_s = self._clock()
            robot, preparation = self.robot, self._preparation
            robot.sense()
            self._requests.serve(lambda name, value: self._execute(name, value, now_s))
            if self._estop:  # after the requests: a clear from before it must not end it
                robot.latch("estop", ESTOP)
                self._estop = False
            self._note_latches(now_s)
            before, self.state = self.state, next_state(self.state, self._conditions())
            if before is State.HOMING and self.state is State.STOPPING:
                preparation.called = False  # an interrupted call is not continued
            if self.state is State.HOMING:
                preparation.at_home = robot.go_home()
                preparation.called = preparation.called and not preparation.at_home
                return False
            action, observed_s, age_s = None, float("-inf"), 0.0
            self.origin, self.plan_age_s = HOLD, None
            if self.state is State.ACTING:
                due = self.plan.due(now_s)
                if isinstance(due, str):
                    self.due_text = due
                else:
                    self.due_text = ""
                    action, observed_s = due.action, due.observed_s
                    age_s = now_s - due.observed_s + due.image_age_s
                    self.origin, self.plan_age_s = due.origin, age_s
            complete = robot.tick(action, observed_s, age_s)
            return complete if preparation.acting else self.ready

    def _conditions(self) -> Conditions:
        robot = self.robot
        return Conditions(
            driver=robot.driver_ready(),
            latched=bool(robot.latched()),
            permitted=self.permission.granted and not self._driver.busy,
            stopped=robot.stopped(),
            at_rest=robot.at_rest(),
            acting=self._preparation.acting,
            homing=self._preparation.needs_home,
        )

    def _note_latches(self, now_s: float) -> None:
        """A new latch ends the permission to move until the operator gives it again."""
        latches = tuple(self.robot.latched())
        if set(latches) - set(self._latches):
            self._forbid("stopped and latched: call clear, then resume", now_s)
        if latches != self._latches:
            self._latches = latches
            self._on_latch()

    def _forbid(self, needs: str, now_s: float) -> None:
        """Stop; plans and calls made before now are void."""
        self.permission = Permission(needs)
        self._preparation.called = False
        self._invalidate(now_s)

    def _invalidate(self, now_s: float) -> None:
        self.plan.invalidate(now_s)
        self.robot.invalidate_plans(now_s)

    def _execute(self, name: str, value: object, now_s: float) -> Answer:
        handle = getattr(self, f"_on_{name}")
        answer: Answer = handle(now_s) if value is None else handle(now_s, value)
        return answer

    def _on_speed_scale(self, now_s: float, scale: float) -> Answer:
        refused = self.robot.set_speed_scale(scale)
        return Answer(not refused, refused or f"speed scale is {100.0 * scale:.0f} %")

    def _on_driver(self, now_s: float, step: DriverStep) -> Answer:
        answer = self._driver.execute(step, moving=self.moving, permitted=self.permission.granted)
        if step.phase == "done":
            self._forbid(answer.text, now_s)
            self._preparation.at_home = False
        return answer

    def _on_pause(self, now_s: float) -> Answer:
        if self.robot.latched():
            return Answer(True, "stopped already: latched")
        self._forbid("paused: call resume", now_s)
        return Answer(True, "paused: all motion stops; resume goes on with a new plan")

    def _on_resume(self, now_s: float) -> Answer:
        if self._driver.busy:
            return Answer(False, f"{self._driver.busy}: call resume again afterwards")
        if latched := self.robot.latched():
            return Answer(False, f"latched ({', '.join(latched)}): call clear first")
        if not self.robot.at_rest():
            return Answer(False, "the robot is still stopping: call resume again when it stands")
        self._allow(now_s)
        return Answer(True, "motion is allowed: from plans made from now on")

    def _on_go_home(self, now_s: float) -> Answer:
        if self._driver.busy:
            return Answer(False, f"{self._driver.busy}: call go_home again afterwards")
        if latched := self.robot.latched():
            return Answer(False, f"latched ({', '.join(latched)}): call clear first")
        if self._preparation.ending:
            return Answer(False, "the run is over")
        if self._preparation.acting:
            return Answer(False, "an episode is under preparation: call reset to end it")
        if not self.robot.driver_ready():
            return Answer(False, "the driver is not ready")
        self._allow(now_s)
        self._preparation.called, self._preparation.at_home = True, False
        return Answer(True, "going home")

    def _allow(self, now_s: float) -> None:
        self.permission = Permission()
        self._invalidate(now_s)

    def _on_clear(self, now_s: float) -> Answer:
        if not self.robot.latched():
            return Answer(True, "nothing is latched")
        refused = self.robot.clear()
        if refused:
            return Answer(False, refused)
        self._forbid("cleared: call resume, or go_home", now_s)
        self._preparation.at_home = False  # it may have been moved by hand
        return Answer(True, "cleared: nothing moves before resume or go_home")

    def _on_reset(self, now_s: float) -> Answer:
        if not self._preparation.acting:
            return Answer(False, "no episode is under preparation: nothing to reset")
        self.robot.end_episode()
        self.plan.invalidate(now_s)
        return Answer(True, "the episode ends with its next step")

    @property
    def moving(self) -> bool:
        return self.state in MOVING or not self.robot.at_rest()
