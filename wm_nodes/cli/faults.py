"""`wm faults`: break everything around the simulated arm, with real processes, and see."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from wm_nodes.cli.arguments import parse, require, require_one_of

if TYPE_CHECKING:
    from wm_nodes.faults.auditor import Auditor, Broken
    from wm_nodes.faults.matrix import Outcome


@dataclass(frozen=True)
class Faults:
    """Inject each fault at random moments, with real processes, and audit every command.

    Exit code 1: a limit was broken, the arm did not stop where it must, or it did not recover.
    """

    count: int = 200
    """Injections in all; the faults take turns in random order."""
    only: tuple[str, ...] = ()
    """Only these faults."""
    seed: int = 0
    """Of moments and motion."""
    fuzz: int = 0
    """Instead: give so many messages of rubbish to every subscription of the robot node."""
    out: Path | None = None
    """Write OUT.json and OUT.csv."""


def run(words: Sequence[str]) -> int:
    """Run `wm faults WORDS`."""
    wanted = parse(Faults, "faults", words)
    require("count", wanted.count, 1)
    if wanted.fuzz:
        return _fuzz(wanted)
    from wm_nodes.faults.matrix import FAULTS, run_matrix

    for name in wanted.only:
        require_one_of("only", name, FAULTS)
    names = wanted.only or FAULTS
    random = np.random.default_rng(wanted.seed)
    order: list[str] = []
    while len(order) < wanted.count:
        order += [str(name) for name in random.permutation(names)]

    done: list[Outcome] = []

    def show(outcome: Outcome, heard: Auditor) -> None:
        verdict = "fine" if outcome.fine else "NOT FINE"
        print(
            f"{outcome.number + 1:4d} {outcome.fault:18s} {verdict:8s} violations "
            f"{outcome.violations}, stop {outcome.stop_s:.2f} s, recover {outcome.recover_s:.2f} s,"
            f" lost {outcome.lost_steps}: {outcome.state}",
            flush=True,
        )
        done.append(outcome)
        if wanted.out is not None:
            _save(wanted.out, wanted.seed, done, heard)  # a run that is cut short has been of use

    heard = run_matrix(order[: wanted.count], wanted.seed, show)
    print(_line(done, heard))
    bad = sum(not outcome.fine for outcome in done)
    return 1 if bad or heard.violations else 0


def _line(done: Sequence[Outcome], heard: Auditor) -> str:
    bad = sum(not outcome.fine for outcome in done)
    return (
        f"{len(done)} faults, {bad} not fine, {sum(heard.violations.values())} violations in "
        f"{heard.commands} commands {heard.violations or ''}, {heard.unheard} unheard, "
        f"{heard.jumps} new beginnings"
    )


def _save(out: Path, seed: int, done: Sequence[Outcome], heard: Auditor) -> None:
    """Write OUT.json and OUT.csv of what was done so far."""
    out.parent.mkdir(parents=True, exist_ok=True)
    summary = {"line": _line(done, heard), "seed": seed, "faults": _summary(done)}
    summary["broken"] = [_evidence(one) for one in heard.broken]
    out.with_suffix(".json").write_text(json.dumps(summary, indent=2) + "\n")
    with out.with_suffix(".csv").open("w", newline="") as file:
        table = csv.DictWriter(file, fieldnames=list(asdict(done[0])))
        table.writeheader()
        table.writerows(asdict(outcome) for outcome in done)


def _fuzz(wanted: Faults) -> int:
    from wm_nodes.faults.fuzzing import run_fuzz

    found = run_fuzz(wanted.fuzz, wanted.seed)
    line = (
        f"{found.messages} messages, {found.refused} refused, {sum(found.violations.values())} "
        f"violations in {found.commands} commands {found.violations or ''}, {found.unheard} "
        f"unheard, robot node {'alive' if found.alive else 'DEAD'}, "
        f"{'moves' if found.moves_again else 'STANDS'} after"
    )
    print(line)
    if wanted.out is not None:
        wanted.out.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"line": line, "seed": wanted.seed, **asdict(found)}, indent=2)
        wanted.out.with_suffix(".json").write_text(text + "\n")
    return 0 if found.fine else 1


def _evidence(broken: Broken) -> dict[str, object]:
    """Return a broken limit with the commands up to it; `*`: a path began there."""
    commands = [
        f"{one.when_s - broken.commands[-1].when_s:+.3f} s {'*' if one.anew else ' '} "
        + " ".join(f"{value:.9f}" for value in one.place)
        for one in broken.commands
    ]
    return {"limit": broken.limit, "command": broken.number, "commands": commands}


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
            "not_fine": sum(not row["fine"] for row in mine),
            "stop_s_median": round(float(np.median(stops)), 3) if stops else None,
            "stop_s_most": max(stops, default=None),
            "recover_s_median": round(float(np.median(backs)), 3) if backs else None,
            "recover_s_most": max(backs, default=None),
            "lost_steps_median": int(np.median([row["lost_steps"] for row in mine])),
        }
    return found
