"""The fault matrix: each fault is injected at a random moment of motion, removed, and audited."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from wm_nodes.checks.faults.audit.auditor import Auditor
from wm_nodes.checks.faults.injections import FAULTS
from wm_nodes.checks.faults.rig import Rig, open_rig
from wm_nodes.namespaces import ROBOT

UNAIDED_S = 20.0  # time for the arm to move again where no operator is needed
WAIT_S = 1.5  # elsewhere: time until the operator acts
SETTLE_S = 0.4
TRIES = 5  # to bring the arm into an episode before an injection


@dataclass(frozen=True)
class Outcome:
    """One injection. Times in seconds; -1: it did not happen, and did not have to."""

    number: int
    interface: str
    fault: str
    lasted_s: float
    violations: int  # all of the auditor's, `uncaused` among them
    uncaused: int
    limits: str  # which limits were broken, how often
    closest_s: float  # see `MotionLog.closest_s`: far below 0.03 measured speeds are wrong
    stop_s: float  # from the fault to standing still
    recover_s: float  # from its end to moving again
    lost_steps: int  # control periods without motion
    operator: bool  # whether an operator had to act before it moved again
    state: str  # reported by the robot while the fault lasted
    problem: str  # other than violations
    fine: bool


def inject(rig: Rig, number: int, name: str) -> Outcome:
    """Inject one fault at a random moment of motion, and bring the arm back to motion."""
    fault, auditor = FAULTS[name], rig.auditor
    for _ in range(TRIES):
        rig.recover(rest=False, unaided_s=WAIT_S)
        if rig.until_acting():  # an arm on its way home continues by itself after a stall
            break
    time.sleep(rig.some(0.2, 1.0))
    auditor.finish()
    before, lost = dict(auditor.violations), rig.witness.stopped
    rig.begin()
    start_s, stamp_s = time.monotonic(), time.time()
    problem = fault.inject(rig)
    ended_s = time.monotonic()
    state = rig.witness.state
    died = rig.plant.died()
    unaided_s = UNAIDED_S if fault.unaided else WAIT_S
    recovered, operator = rig.recover(fault.rest, unaided_s)
    recover_s = time.monotonic() - ended_s if recovered else -1.0
    time.sleep(SETTLE_S)
    auditor.finish()
    counts = {k: v - before.get(k, 0) for k, v in auditor.violations.items()}
    if died:
        problem = problem or f"ended by itself: {', '.join(died)}"
    if not recovered:
        problem = problem or f"does not move again: {rig.witness.state}"
    if fault.stands and rig.stop_s < 0:
        problem = problem or "did not stop"
    if fault.unaided and operator:
        problem = problem or f"needed the operator: {state}"
    return Outcome(
        number=number,
        interface=rig.config.command.interface,
        fault=name,
        lasted_s=round(ended_s - start_s, 2),
        violations=sum(counts.values()),
        uncaused=counts.get("uncaused", 0),
        limits=", ".join(f"{name} {count}" for name, count in counts.items() if count),
        closest_s=round(rig.log.closest_s(stamp_s), 4),
        stop_s=round(rig.stop_s, 3),
        recover_s=round(recover_s, 3),
        lost_steps=rig.witness.stopped - lost,
        operator=operator,
        state=state[:80],
        problem=problem,
        fine=not problem and not any(counts.values()),
    )


def run_matrix(
    faults: Mapping[str, list[str]],
    seed: int,
    watch: Callable[[Outcome, Auditor], None],
    ns: str = ROBOT,
) -> dict[str, Auditor]:
    """Inject the faults of each command interface in order, with separate processes for each.

    watch: called after each injection. Returns each interface's auditor. RuntimeError: the arm did
    not move before the first fault.
    """
    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    auditors: dict[str, Auditor] = {}
    number = 0
    for interface, names in faults.items():
        with (
            tempfile.TemporaryDirectory(prefix="wm-faults-", ignore_cleanup_errors=True) as folder,
            open_rig(Path(folder), interface, seed, ns) as rig,
        ):
            auditors[interface] = rig.auditor
            for name in names:
                watch(inject(rig, number, name), rig.auditor)
                number += 1
        auditors[interface].finish()  # the commands until the processes ended
    return auditors
