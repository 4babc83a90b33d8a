"""`wm faults`: inject faults around the simulated arm, with real processes, and audit it."""

from __future__ import annotations

import csv
import json
import shlex
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from wm_nodes.cli.arguments import parse, require, require_namespace, require_one_of
from wm_nodes.namespaces import ROBOT

if TYPE_CHECKING:
    from wm_nodes.checks.faults.audit.auditor import Auditor
    from wm_nodes.checks.faults.audit.record import BrokenLimit
    from wm_nodes.checks.faults.estop_latency import EstopCall
    from wm_nodes.checks.faults.matrix import Outcome

TERMINATED = 128 + signal.SIGTERM  # exit code


@dataclass(frozen=True)
class Faults:
    """Inject each fault at random moments, with real processes, and audit every command.

    Exit code 1: a limit was broken, the arm did not stop where it must or moved without cause, or
    it did not recover.
    """

    count: int = 200
    """Injections in all; the faults take turns in random order."""
    interface: Literal["position", "velocity", "trajectory", "all"] = "all"
    """Command interface of the arm; all: the injections are spread over the three."""
    only: tuple[str, ...] = ()
    """Only these faults."""
    seed: int = 0
    """Seed of moments and motion."""
    estop: int = 0
    """Instead: number of e-stop calls under load; measures how fast the arm stops."""
    fuzz: int = 0
    """Instead: number of random, mostly invalid messages for the robot node's subscriptions."""
    out: Path | None = None
    """Write OUT.json and OUT.csv."""
    ns: str = ROBOT
    """Namespace of the robot's nodes; the simulated arm is in `arm_sim` beside it."""


def run(words: Sequence[str]) -> int:
    """Run `wm faults WORDS`."""
    options = parse(Faults, "faults", words)
    options = replace(options, ns=require_namespace("ns", options.ns))
    require("count", options.count, 1)
    require("estop", options.estop, 0)
    require("fuzz", options.fuzz, 0)
    command = shlex.join(["wm", "faults", *words])
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))  # ends all processes
    if options.fuzz:
        return _fuzz(options, command)
    if options.estop:
        return _estop(options, command)
    return _matrix(options, command)


def _spread(interface: str, count: int) -> dict[str, int]:
    """Return the number of injections of each interface."""
    from wm_nodes.checks.faults.plant import COMMANDS

    names = list(COMMANDS) if interface == "all" else [interface]
    least, more = divmod(count, len(names))
    counts = {name: least + (index < more) for index, name in enumerate(names)}
    return {name: count for name, count in counts.items() if count}


# The matrix -------------------------------------------------------------------------------------


def _matrix(options: Faults, command: str) -> int:
    from wm_nodes.checks.faults.injections import FAULTS
    from wm_nodes.checks.faults.matrix import run_matrix

    for name in options.only:
        require_one_of("only", name, tuple(FAULTS))
    names = options.only or tuple(FAULTS)
    random = np.random.default_rng(options.seed)
    orders: dict[str, list[str]] = {}
    for interface, count in _spread(options.interface, options.count).items():
        order: list[str] = []
        while len(order) < count:
            order += [str(name) for name in random.permutation(names)]
        orders[interface] = order[:count]

    done: list[Outcome] = []
    auditors: dict[str, Auditor] = {}

    def save() -> None:
        if options.out is not None:
            summary = {"faults": _summary(done)}
            _save(options, command, _line(done, auditors), summary, done, auditors)

    def watch(outcome: Outcome, auditor: Auditor) -> None:
        verdict = "fine" if outcome.fine else "NOT FINE"
        print(
            f"{outcome.number + 1:4d} {outcome.interface:10s} {outcome.fault:30s} {verdict:8s} "
            f"violations {outcome.violations}, stop {outcome.stop_s:.2f} s, recover "
            f"{outcome.recover_s:.2f} s, lost {outcome.lost_steps}: "
            f"{outcome.problem or outcome.limits or outcome.state}",
            flush=True,
        )
        done.append(outcome)
        auditors[outcome.interface] = auditor
        save()  # after each, so that an interrupted run leaves results

    run_matrix(orders, options.seed, watch, options.ns)
    save()  # the auditors check the last commands at the end of run_matrix
    print(_line(done, auditors))
    return 0 if all(outcome.fine for outcome in done) and not _violations(auditors) else 1


def _violations(auditors: Mapping[str, Auditor]) -> dict[str, int]:
    totals: dict[str, int] = {}
    for auditor in auditors.values():
        for name, count in auditor.violations.items():
            totals[name] = totals.get(name, 0) + count
    return totals


def _line(done: Sequence[Outcome], auditors: Mapping[str, Auditor]) -> str:
    bad = sum(not outcome.fine for outcome in done)
    violations, all_auditors = _violations(auditors), auditors.values()
    return (
        f"{len(done)} faults, {bad} not fine, {sum(violations.values())} violations in "
        f"{sum(auditor.commands for auditor in all_auditors)} commands {violations or ''}, "
        f"{violations.get('uncaused', 0)} motions without cause, "
        f"{sum(auditor.not_received for auditor in all_auditors)} commands not received, "
        f"{sum(auditor.held_up for auditor in all_auditors)} delayed on their way out, "
        f"{sum(auditor.starts for auditor in all_auditors)} new path starts"
    )


# The e-stop -------------------------------------------------------------------------------------


def _estop(options: Faults, command: str) -> int:
    from wm_nodes.checks.faults.estop_latency import quantiles, run_estop

    done: list[EstopCall] = []
    auditors: dict[str, Auditor] = {}

    def table() -> dict[str, Any]:
        rows = {"all": quantiles(done)}
        for name in auditors:
            rows[name] = quantiles([call for call in done if call.interface == name])
        return rows

    def line() -> str:
        violations = _violations(auditors)
        return (
            f"{len(done)} e-stops, {sum(not call.fine for call in done)} not fine, "
            f"{sum(violations.values())} violations in "
            f"{sum(auditor.commands for auditor in auditors.values())} commands {violations or ''}"
        )

    def save() -> None:
        if options.out is not None:
            _save(options, command, line(), {"quantiles_ms": table()}, done, auditors)

    def watch(call: EstopCall, auditor: Auditor) -> None:
        done.append(call)
        auditors[call.interface] = auditor
        print(
            f"{call.number + 1:4d} {call.interface:10s} answer {call.answer_s * 1e3:.0f} ms, "
            f"braking {call.braking_s * 1e3:.0f} ms, last moving command "
            f"{call.commands_s * 1e3:.0f} ms, standstill {call.standstill_s * 1e3:.0f} ms, "
            f"violations {call.violations}",
            flush=True,
        )
        save()

    run_estop(_spread(options.interface, options.estop), options.seed, watch, options.ns)
    save()
    for interface, times in table().items():
        for name, row in times.items():
            figures = ", ".join(f"{key} {value:g} ms" for key, value in row.items())
            print(f"{interface:10s} {name:10s} {figures}")
    print(line())
    return 0 if all(call.fine for call in done) and not _violations(auditors) else 1


# Fuzzing ----------------------------------------------------------------------------------------


def _fuzz(options: Faults, command: str) -> int:
    from wm_nodes.checks.faults.fuzz import run_fuzz

    results = {}
    for interface, count in _spread(options.interface, options.fuzz).items():
        result = run_fuzz(count, options.seed, interface, options.ns)
        results[interface] = result
        print(
            f"{interface}: {result.messages} messages, {result.refused} refused, "
            f"{sum(result.violations.values())} violations in {result.commands} commands "
            f"{result.violations or ''}, {result.not_received} not received, robot node "
            f"{'alive' if result.alive else 'DEAD'}, "
            f"{'moves' if result.moves_again else 'STANDS'} after",
            flush=True,
        )
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        content: dict[str, Any] = {"command": command, "seed": options.seed}
        content |= {name: asdict(result) for name, result in results.items()}
        options.out.with_suffix(".json").write_text(json.dumps(content, indent=2) + "\n")
    return 0 if all(result.fine for result in results.values()) else 1


# Results ----------------------------------------------------------------------------------------


def _save(
    options: Faults,
    command: str,
    line: str,
    summary: Mapping[str, object],
    done: Sequence[Any],
    auditors: Mapping[str, Auditor],
) -> None:
    """Write OUT.json and OUT.csv with the results so far."""
    assert options.out is not None
    options.out.parent.mkdir(parents=True, exist_ok=True)
    content: dict[str, object] = {"command": command, "line": line, "seed": options.seed, **summary}
    content["broken"] = {
        name: [_evidence(limit) for limit in auditor.broken] for name, auditor in auditors.items()
    }
    options.out.with_suffix(".json").write_text(json.dumps(content, indent=2) + "\n")
    with options.out.with_suffix(".csv").open("w", newline="") as file:
        table = csv.DictWriter(file, fieldnames=list(asdict(done[0])))
        table.writeheader()
        table.writerows(asdict(result) for result in done)


def _evidence(broken: BrokenLimit) -> dict[str, object]:
    """Return a broken limit with the commands up to it; `*`: a path starts there."""
    commands = [
        f"{command.when_s - broken.commands[-1].when_s:+.3f} s "
        f"{'*' if command.starts_path else ' '} "
        + " ".join(f"{value:.9f}" for value in command.place)
        for command in broken.commands
    ]
    evidence = {"limit": broken.limit, "command": broken.number, "commands": commands}
    return evidence | ({"note": broken.note} if broken.note else {})


def _summary(outcomes: Sequence[Outcome]) -> dict[str, dict[str, object]]:
    """Return each fault's counts and worst times."""
    rows = [asdict(outcome) for outcome in outcomes]
    by_fault: dict[str, dict[str, object]] = {}
    for name in dict.fromkeys(row["fault"] for row in rows):
        injections = [row for row in rows if row["fault"] == name]
        stops = [row["stop_s"] for row in injections if row["stop_s"] >= 0]
        recoveries = [row["recover_s"] for row in injections if row["recover_s"] >= 0]
        by_fault[name] = {
            "injections": len(injections),
            "violations": sum(row["violations"] for row in injections),
            "uncaused": sum(row["uncaused"] for row in injections),
            "not_fine": sum(not row["fine"] for row in injections),
            "stop_s_median": round(float(np.median(stops)), 3) if stops else None,
            "stop_s_most": max(stops, default=None),
            "recover_s_median": round(float(np.median(recoveries)), 3) if recoveries else None,
            "recover_s_most": max(recoveries, default=None),
            "operator": sum(row["operator"] for row in injections),
            "lost_steps_median": int(np.median([row["lost_steps"] for row in injections])),
        }
    return by_fault
