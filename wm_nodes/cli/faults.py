"""`wm faults`: break everything around the simulated arm, with real processes, and audit it."""

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
    """Of moments and motion."""
    estop: int = 0
    """Instead: call the e-stop so many times under load, and measure how fast the arm stops."""
    fuzz: int = 0
    """Instead: give so many random, mostly wrong messages to the robot node's subscriptions."""
    out: Path | None = None
    """Write OUT.json and OUT.csv."""
    ns: str = ROBOT
    """Namespace of the robot's nodes; the simulated arm is in `arm_sim` beside it."""


def run(words: Sequence[str]) -> int:
    """Run `wm faults WORDS`."""
    wanted = parse(Faults, "faults", words)
    wanted = replace(wanted, ns=require_namespace("ns", wanted.ns))
    require("count", wanted.count, 1)
    require("estop", wanted.estop, 0)
    require("fuzz", wanted.fuzz, 0)
    command = shlex.join(["wm", "faults", *words])
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))  # ends all processes
    if wanted.fuzz:
        return _fuzz(wanted, command)
    if wanted.estop:
        return _estop(wanted, command)
    return _matrix(wanted, command)


def _spread(interface: str, count: int) -> dict[str, int]:
    """Return how many injections each interface gets."""
    from wm_nodes.checks.faults.plant import COMMANDS

    names = list(COMMANDS) if interface == "all" else [interface]
    least, more = divmod(count, len(names))
    counts = {name: least + (index < more) for index, name in enumerate(names)}
    return {name: count for name, count in counts.items() if count}


# The matrix -------------------------------------------------------------------------------------


def _matrix(wanted: Faults, command: str) -> int:
    from wm_nodes.checks.faults.matrix import FAULTS, run_matrix

    for name in wanted.only:
        require_one_of("only", name, tuple(FAULTS))
    names = wanted.only or tuple(FAULTS)
    random = np.random.default_rng(wanted.seed)
    orders: dict[str, list[str]] = {}
    for interface, count in _spread(wanted.interface, wanted.count).items():
        order: list[str] = []
        while len(order) < count:
            order += [str(name) for name in random.permutation(names)]
        orders[interface] = order[:count]

    done: list[Outcome] = []
    auditors: dict[str, Auditor] = {}

    def save() -> None:
        if wanted.out is not None:
            summary = {"faults": _summary(done)}
            _save(wanted, command, _line(done, auditors), summary, done, auditors)

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
        save()  # now, so that an interrupted run has results

    run_matrix(orders, wanted.seed, watch, wanted.ns)
    save()  # the auditors have judged the last commands only now
    print(_line(done, auditors))
    return 0 if all(outcome.fine for outcome in done) and not _violations(auditors) else 1


def _violations(auditors: Mapping[str, Auditor]) -> dict[str, int]:
    found: dict[str, int] = {}
    for auditor in auditors.values():
        for name, count in auditor.violations.items():
            found[name] = found.get(name, 0) + count
    return found


def _line(done: Sequence[Outcome], auditors: Mapping[str, Auditor]) -> str:
    bad = sum(not outcome.fine for outcome in done)
    found, all_of = _violations(auditors), auditors.values()
    return (
        f"{len(done)} faults, {bad} not fine, {sum(found.values())} violations in "
        f"{sum(one.commands for one in all_of)} commands {found or ''}, "
        f"{found.get('uncaused', 0)} motions without cause, "
        f"{sum(one.not_received for one in all_of)} commands not received, "
        f"{sum(one.held_up for one in all_of)} held up on their way out, "
        f"{sum(one.starts for one in all_of)} new beginnings"
    )


# The e-stop -------------------------------------------------------------------------------------


def _estop(wanted: Faults, command: str) -> int:
    from wm_nodes.checks.faults.estop_latency import quantiles, run_estop

    done: list[EstopCall] = []
    auditors: dict[str, Auditor] = {}

    def table() -> dict[str, Any]:
        rows = {"all": quantiles(done)}
        for name in auditors:
            rows[name] = quantiles([call for call in done if call.interface == name])
        return rows

    def line() -> str:
        found = _violations(auditors)
        return (
            f"{len(done)} e-stops, {sum(not call.fine for call in done)} not fine, "
            f"{sum(found.values())} violations in "
            f"{sum(one.commands for one in auditors.values())} commands {found or ''}"
        )

    def save() -> None:
        if wanted.out is not None:
            _save(wanted, command, line(), {"quantiles_ms": table()}, done, auditors)

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

    run_estop(_spread(wanted.interface, wanted.estop), wanted.seed, watch, wanted.ns)
    save()
    for interface, times in table().items():
        for name, row in times.items():
            figures = ", ".join(f"{key} {value:g} ms" for key, value in row.items())
            print(f"{interface:10s} {name:10s} {figures}")
    print(line())
    return 0 if all(call.fine for call in done) and not _violations(auditors) else 1


# Fuzzing ----------------------------------------------------------------------------------------


def _fuzz(wanted: Faults, command: str) -> int:
    from wm_nodes.checks.faults.fuzz import run_fuzz

    results = {}
    for interface, count in _spread(wanted.interface, wanted.fuzz).items():
        found = run_fuzz(count, wanted.seed, interface, wanted.ns)
        results[interface] = found
        print(
            f"{interface}: {found.messages} messages, {found.refused} refused, "
            f"{sum(found.violations.values())} violations in {found.commands} commands "
            f"{found.violations or ''}, {found.not_received} not received, robot node "
            f"{'alive' if found.alive else 'DEAD'}, "
            f"{'moves' if found.moves_again else 'STANDS'} after",
            flush=True,
        )
    if wanted.out is not None:
        wanted.out.parent.mkdir(parents=True, exist_ok=True)
        given: dict[str, Any] = {"command": command, "seed": wanted.seed}
        given |= {name: asdict(found) for name, found in results.items()}
        wanted.out.with_suffix(".json").write_text(json.dumps(given, indent=2) + "\n")
    return 0 if all(found.fine for found in results.values()) else 1


# Results ----------------------------------------------------------------------------------------


def _save(
    wanted: Faults,
    command: str,
    line: str,
    summary: Mapping[str, object],
    done: Sequence[Any],
    auditors: Mapping[str, Auditor],
) -> None:
    """Write OUT.json and OUT.csv of what was done so far."""
    assert wanted.out is not None
    wanted.out.parent.mkdir(parents=True, exist_ok=True)
    given: dict[str, object] = {"command": command, "line": line, "seed": wanted.seed, **summary}
    given["broken"] = {
        name: [_evidence(one) for one in auditor.broken] for name, auditor in auditors.items()
    }
    wanted.out.with_suffix(".json").write_text(json.dumps(given, indent=2) + "\n")
    with wanted.out.with_suffix(".csv").open("w", newline="") as file:
        table = csv.DictWriter(file, fieldnames=list(asdict(done[0])))
        table.writeheader()
        table.writerows(asdict(one) for one in done)


def _evidence(broken: BrokenLimit) -> dict[str, object]:
    """Return a broken limit with the commands up to it; `*`: a path began there."""
    commands = [
        f"{one.when_s - broken.commands[-1].when_s:+.3f} s {'*' if one.starts_path else ' '} "
        + " ".join(f"{value:.9f}" for value in one.place)
        for one in broken.commands
    ]
    found = {"limit": broken.limit, "command": broken.number, "commands": commands}
    return found | ({"note": broken.note} if broken.note else {})


def _summary(outcomes: Sequence[Outcome]) -> dict[str, dict[str, object]]:
    """Return each fault's counts and worst times."""
    rows = [asdict(outcome) for outcome in outcomes]
    found: dict[str, dict[str, object]] = {}
    for name in dict.fromkeys(row["fault"] for row in rows):
        mine = [row for row in rows if row["fault"] == name]
        stops = [row["stop_s"] for row in mine if row["stop_s"] >= 0]
        backs = [row["recover_s"] for row in mine if row["recover_s"] >= 0]
        found[name] = {
            "injections": len(mine),
            "violations": sum(row["violations"] for row in mine),
            "uncaused": sum(row["uncaused"] for row in mine),
            "not_fine": sum(not row["fine"] for row in mine),
            "stop_s_median": round(float(np.median(stops)), 3) if stops else None,
            "stop_s_most": max(stops, default=None),
            "recover_s_median": round(float(np.median(backs)), 3) if backs else None,
            "recover_s_most": max(backs, default=None),
            "operator": sum(row["operator"] for row in mine),
            "lost_steps_median": int(np.median([row["lost_steps"] for row in mine])),
        }
    return found
