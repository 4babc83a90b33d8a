"""Latency of the emergency stop under load: to the last moving command, and to standstill."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wm_nodes.checks.faults.audit.auditor import Auditor
from wm_nodes.checks.faults.plant import busy, long_plans
from wm_nodes.checks.faults.rig import Rig, open_rig
from wm_nodes.namespaces import ROBOT

REST_S = 2.0  # until the arm stands
QUANTILES = (50, 99, 100)


@dataclass(frozen=True)
class EstopCall:
    """One call. Times from the call [s]; NaN: not measured. `Stop` of `motion_log` defines them."""

    number: int
    interface: str
    answer_s: float  # to the service's answer: the latch is on the disk
    braking_s: float
    commands_s: float
    standstill_s: float
    violations: int

    @property
    def fine(self) -> bool:
        return not self.violations and bool(np.isfinite([self.answer_s, self.standstill_s]).all())


def measure(rig: Rig, number: int) -> EstopCall:
    """Call the e-stop at a random moment of motion, wait until the arm rests, and release it."""
    rig.recover(rest=False, unaided_s=0.2)
    time.sleep(rig.some(0.2, 1.0))
    rig.auditor.finish()
    before = sum(rig.auditor.violations.values())
    rig.begin()
    rig.expect_rest()
    called_s, start_s = time.time(), time.monotonic()
    done, _ = rig.call("estop", True)
    answer_s = time.monotonic() - start_s if done else np.nan
    rig.wait(REST_S)
    stop = rig.log.stop(called_s)
    rig.recover(rest=True, unaided_s=0.0)
    rig.auditor.finish()
    broken = sum(rig.auditor.violations.values()) - before
    return EstopCall(
        number=number,
        interface=rig.config.command.interface,
        answer_s=round(float(answer_s), 4),
        braking_s=round(stop.braking_s, 4),
        commands_s=round(stop.commands_s, 4),
        standstill_s=round(stop.standstill_s, 4),
        violations=broken,
    )


def run_estop(
    counts: Mapping[str, int],
    seed: int,
    watch: Callable[[EstopCall, Auditor], None],
    ns: str = ROBOT,
) -> dict[str, Auditor]:
    """Call the e-stop `counts` times for each command interface, with separate processes for each.

    Meanwhile plans of 200 000 points are published and one process computes. watch: called after
    each call. Returns each interface's auditor. RuntimeError: the arm did not move before the
    first call.
    """
    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    auditors: dict[str, Auditor] = {}
    number = 0
    for interface, count in counts.items():
        with (
            tempfile.TemporaryDirectory(prefix="wm-estop-", ignore_cleanup_errors=True) as folder,
            open_rig(Path(folder), interface, seed, ns) as rig,
            busy(1),
            long_plans(ns),
        ):
            auditors[interface] = rig.auditor
            for _ in range(count):
                watch(measure(rig, number), rig.auditor)
                number += 1
        auditors[interface].finish()  # the commands until the processes ended
    return auditors


def quantiles(calls: Sequence[EstopCall]) -> dict[str, dict[str, float]]:
    """Return p50, p99 and max [ms] of each time; calls without a time are left out."""
    rows = {}
    for name in ("answer", "braking", "commands", "standstill"):
        times = np.array([getattr(call, f"{name}_s") for call in calls]) * 1e3
        times = times[np.isfinite(times)]
        values = np.percentile(times, QUANTILES) if len(times) else [np.nan] * len(QUANTILES)
        rows[name] = {k: round(float(v), 1) for k, v in zip(("p50", "p99", "max"), values)}
    return rows
