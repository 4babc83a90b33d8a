"""The robot node's part for robots with a control period of their own: topics and services around
`RealtimeLoop`.

The control thread calls the loop. The executor's thread begins and continues episodes when the
control thread says so, publishes, and reports. Emergency stop has a thread of its own.
"""

from __future__ import annotations

import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NoAnswer
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rclpy.node import Node
from std_srvs.srv import SetBool, Trigger

from wm_nodes.control.active_plan import ActivePlan
from wm_nodes.control.answer import Answer
from wm_nodes.control.periodic_thread import SWITCH_S, Cadence, lock_memory, realtime_allowed
from wm_nodes.control.realtime import RealtimeLoop
from wm_nodes.control.safety_record import Record, SafetyRecord, default_path
from wm_nodes.control.states import State
from wm_nodes.errors import UserError
from wm_nodes.robots.robot import RealtimeRobot
from wm_nodes.ros import topics

if TYPE_CHECKING:
    from wm_nodes.nodes.robot import RobotNode

KEPT = 4096  # newest latencies
REST_S = 2.4  # for coming to rest at the end: the longest stop takes 2.2 s
AGAIN_S = 1.0  # until a record that could not be written is tried again
TAKEN_S = 0.3  # for the control loop to execute an emergency stop
AT_REST = 3  # periods at rest before the loop ends, so that the last commands are equal
# Faults that an operator must mend; latches are others.
STUCK = frozenset(
    "bus camera_clock controller controller_settings driver driver_unknown joint_sources "
    "wrench_sources".split()
)
LOOK_S = 0.05  # between two reports
ANSWER_S = 1.0  # for the control loop to answer a request
NO_REALTIME = (
    "no real-time priority or locked memory: other programs can delay the control loop. Allow both "
    "in /etc/security/limits.conf: `<user> - rtprio 20`, `<user> - memlock unlimited`; log in again"
)


class RealtimeControl:
    """Runs the control loop of a robot node. `start` when the node activates, `stop` when it ends.

    commands: the node that emergency stop belongs to; its own executor answers while the robot
    node's is busy. Raises UserError if real time is required and not allowed.
    """

    def __init__(
        self, node: RobotNode, robot: RealtimeRobot, plan: ActivePlan, commands: Node
    ) -> None:
        self._node, self._robot, self._plan = node, robot, plan
        p = node.params
        self.realtime = realtime_allowed() and (not node.owns_process or lock_memory())
        if p.require_realtime and not self.realtime:
            raise UserError(
                f"require_realtime: {NO_REALTIME}. To run without it: require_realtime:=false."
            )
        path = Path(p.safety_file) if p.safety_file else self._record_path()
        self._record = SafetyRecord(path)
        before = self._record.load()
        self.loop = RealtimeLoop(
            robot,
            plan,
            home=p.home,
            confirm_home=p.confirm_home,
            restarted=before.running or bool(before.latched),
            on_latch=self._latches_changed,
        )
        for name, why in before.latched.items():
            robot.latch(name, why)
        self._ages: deque[float] = deque(maxlen=KEPT)
        self._reported: set[str] = set()
        self._cadence: Cadence | None = None
        self._changed, self._over = threading.Event(), False
        self._writer: threading.Thread | None = None
        self._ready_at = 0.0
        self._make_services(commands)

    def _record_path(self) -> Path:
        node = self._node
        domain = str(node.context.get_domain_id())
        return default_path(self._robot.spec.name, domain, node.get_namespace())

    # Life ---------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin the control loop in a thread of its own."""
        sys.setswitchinterval(SWITCH_S)
        node = self._node
        self._bell = node.create_guard_condition(self._on_bell)
        self._ready_at = time.monotonic()
        if not self._prepare():
            node.end_run()
            return
        self._over = False
        self._store(running=True)
        self._cadence = Cadence(
            self._robot.tick_s, self._tick, alone=node.owns_process, failed=self._robot.halt
        )
        self._writer = threading.Thread(target=self._write_latches, name="latches", daemon=True)
        self._writer.start()
        self._cadence.start()
        self._timer = node.create_timer(LOOK_S, self._look)

    def stop(self) -> None:
        """Come to rest while the loop runs, then end it; standing still is the last command."""
        cadence = self._cadence
        if cadence is None:
            return
        with self.loop.lock:
            self.loop.end()
        end = time.monotonic() + REST_S
        while time.monotonic() < end and cadence.error is None and self.loop.moving:
            time.sleep(self._robot.tick_s)
        time.sleep(AT_REST * self._robot.tick_s)
        cadence.stop()
        self._robot.halt()
        self._cadence = None
        self._over = True
        self._changed.set()
        if self._writer is not None:
            self._writer.join(REST_S)
        self._store(running=cadence.error is not None or self.loop.moving)
        self._node.destroy_timer(self._timer)
        self._node.destroy_guard_condition(self._bell)

    @property
    def alive(self) -> bool:
        """Does the control loop run?"""
        cadence = self._cadence  # another thread may take it away
        return cadence is not None and cadence.error is None

    # The control thread -------------------------------------------------------------------------

    def _tick(self) -> None:
        if self.loop.tick():
            self._bell.trigger()
        if self.loop.plan_age_s is not None:
            self._ages.append(self.loop.plan_age_s)

    # The executor's thread ----------------------------------------------------------------------

    def _prepare(self) -> bool:
        """Choose the next episode and bring the robot there; False: the run is over."""
        with self.loop.lock:
            episode = self._node.runner.prepare()
            if episode is not None:
                self.loop.prepare(episode.seed)
        return episode is not None

    def _on_bell(self) -> None:
        """An agent step is complete, or the robot is ready for an episode."""
        node, loop = self._node, self.loop
        if not node.active or node.finished.done():
            return
        if not loop.acting:
            if not loop.ready or not self._planner_there():
                return
            with loop.lock:
                transition = node.runner.begin()
                if transition is not None:
                    loop.begin(transition.step.stamp_ns)
            if transition is not None:
                node.publish(transition)
            return
        if not self._robot.complete():
            return
        with loop.lock:
            transition = node.runner.execute(self._robot.holding(), loop.origin)
        node.count(transition)
        node.publish(transition)
        if transition.step.is_last:
            node.save()
            self._ready_at = time.monotonic()
            if not self._prepare():
                with loop.lock:
                    loop.end()
                node.end_run()

    def _planner_there(self) -> bool:
        """Is a planner on topic plan, or was one waited for long enough?"""
        waited = time.monotonic() - self._ready_at
        if waited >= self._node.params.await_planner_s:
            return True
        return self._node.count_publishers(topics.PLAN.name) > 0

    def _look(self) -> None:
        """Report what is wrong with the robot, and how even the control periods are."""
        cadence, node = self._cadence, self._node
        if cadence is None:
            return
        if cadence.error is not None:
            raise cadence.error
        now = dict(self._robot.faults())
        if waiting := self.loop.waiting_for():
            now["waiting"] = waiting
        if self.loop.acting and self.loop.due_text:
            now["plan"] = self.loop.due_text
        elif self.loop.state is not State.ACTING:
            now.pop("plan", None)
        if not self.realtime:
            now["realtime"] = NO_REALTIME
        for name in self._reported - set(now):
            node.clear_fault(name, f"over: {name}")
        latched = self.loop.latched()
        for name, text in now.items():
            node.report_fault(name, text, error=name in STUCK or name in latched)
        self._reported = set(now)
        node.diagnostics.facts.update(self._robot.facts())
        node.diagnostics.facts.update(cadence.figures())
        node.diagnostics.facts["state"] = self.loop.state.value
        if self._ages:
            p50, p99 = np.percentile(self._ages, (50, 99)) * 1e3
            node.diagnostics.facts.update(camera_to_command_p50_ms=f"{p50:.1f}")
            node.diagnostics.facts.update(camera_to_command_p99_ms=f"{p99:.1f}")

    # The record ---------------------------------------------------------------------------------

    def _latches_changed(self) -> None:
        self._changed.set()

    def _write_latches(self) -> None:
        """Store new latches; a thread of its own, since the control thread must not wait."""
        failed = ""
        while not self._over:
            if self._changed.wait(AGAIN_S if failed else None) or failed:
                self._changed.clear()
                if not self._over:
                    failed = self._store(running=True)

    def _store(self, *, running: bool) -> str:
        """Return "" when the latches are on the disk, or why they are not."""
        try:
            self._record.store(lambda: Record(self.loop.latched(), running))
        except OSError as error:
            text = f"latches cannot be stored in {self._record.path} ({error.strerror})"
            self._node.report_fault("record", f"{text}. Make room, or set safety_file", error=True)
            return text
        self._node.clear_fault("record", "latches are stored again")
        return ""

    # Services -----------------------------------------------------------------------------------

    def _make_services(self, commands: Node) -> None:
        commands.create_service(SetBool, "estop", self._on_estop)
        for name in ("resume", "go_home", "reset"):
            self._node.create_service(Trigger, name, self._asked(name))
        self._node.create_service(SetBool, "pause", self._on_pause)

    def _asked(self, name: str) -> Callable[[Trigger.Request, Trigger.Response], Trigger.Response]:
        def handle(request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
            answer = self.answer(name)
            response.success, response.message = answer.done, answer.text
            return response

        return handle

    def answer(self, name: str, value: object = None) -> Answer:
        """Let the control loop execute a request; waits for its answer."""
        if not self.alive:
            return Answer(False, "the control loop does not run: nothing was done")
        future: Future[Answer] = self.loop.ask(name, value)
        try:
            return future.result(ANSWER_S)
        except NoAnswer:
            future.cancel()  # it must not happen later
            return Answer(False, f"the control loop did not answer within {ANSWER_S:g} s")

    def _on_pause(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        answer = self.answer("pause" if request.data else "resume")
        response.success, response.message = answer.done, answer.text
        return response

    def _on_estop(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        """true: stop and latch; the answer comes when the latch is on the disk. false: clear."""
        if request.data:
            self.loop.estop()
            failed = self._store(running=True)
            end = time.monotonic() + TAKEN_S
            while self.loop.estop_pending and self.alive and time.monotonic() < end:
                time.sleep(0.2 * self._robot.tick_s)
            if self.loop.estop_pending:
                self._robot.halt()
                failed = "the control loop does not run: use the arm's own emergency stop"
            response.success = not failed
            response.message = f"latched, but {failed}" if failed else "stopped and latched"
            return response
        answer = self.answer("clear")
        failed = self._store(running=self._cadence is not None) if answer.done else ""
        response.success = answer.done
        response.message = f"{answer.text}, but {failed}" if failed else answer.text
        return response
