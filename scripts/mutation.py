"""Measure how strict the tests are: a sample of mutants, each run against the tests of its file.

    pip install cosmic-ray
    python scripts/mutation.py --sample 20 --seed 0 --write

cosmic-ray changes one place of one file at a time, in a clone of the last commit; this checkout
is not changed. A mutant is killed when a test fails or takes more than ten times as long as without
it. A surviving mutant shows a missing test, or is equivalent to the original code. The tests of
`wm_nodes/control/realtime.py` are `tests/wm_nodes/control/test_realtime.py`; a file without tests
of its name is tested by all tests of its folder. Unions (`X | None`) are not changed: in
annotations they have no effect at run time.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cosmic_ray.commands import init
from cosmic_ray.mutating import mutate_and_test
from cosmic_ray.work_db import WorkDB, use_db
from cosmic_ray.work_item import MutationSpec, TestOutcome

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "results" / "mutation.md"
PACKAGES = (
    "models/wm_models/nets",
    "models/wm_models/planners",
    "datasets/wm_datasets/storage",
    "wm_nodes/control",
    "wm_nodes/robots/arm",
)
SKIPPED = "ReplaceBinaryOperator_BitOr"
SLOWER = 10.0  # times the tests' own duration


@dataclass(frozen=True)
class Mutant:
    """One change, and the outcome of the tests."""

    change: MutationSpec
    outcome: TestOutcome

    def __str__(self) -> str:
        operator = self.change.operator_name.removeprefix("core/")
        place = f"{self.change.module_path}:{self.change.start_pos[0]}"
        return f"`{place}` {operator} ({self.change.definition_name or 'module'})"


def main() -> None:
    """Mutate, test, print one line a package; with --write also docs/results/mutation.md."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sample", type=int, default=20, help="mutants per package")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--packages", nargs="+", default=PACKAGES)
    parser.add_argument("--python", default=str(ROOT / ".venv/bin/python"), help="runs the tests")
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.relative_to(ROOT)}")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="wm-mutation-") as folder:
        subprocess.run(["git", "clone", "-q", str(ROOT), folder], check=True)
        os.chdir(folder)
        os.environ["PYTHONPATH"] = os.pathsep.join(
            f"{folder}/{p}" for p in ("", "models", "datasets")
        )
        rows, survivors = [], []
        for package in options.packages:
            changes = changes_of(Path(package))
            sample = random.Random(options.seed).sample(changes, min(options.sample, len(changes)))
            mutants = list(tested(sample, options.python))
            alive = [m for m in mutants if m.outcome == TestOutcome.SURVIVED]
            count = len(mutants)
            rows.append((package, len(changes), count, count - len(alive), len(alive)))
            survivors += alive
            print(f"{package}: {count - len(alive)} of {count} killed", flush=True)
            for mutant in alive:
                print(f"  {mutant}", flush=True)
    if options.write:
        PAGE.write_text(page(rows, survivors, options.sample, options.seed))


def changes_of(package: Path) -> list[MutationSpec]:
    """Return every change that cosmic-ray knows for the files of a package."""
    files = sorted(path for path in package.rglob("*.py") if path.name != "__init__.py")
    with use_db(":memory:", WorkDB.Mode.create) as database:
        init(files, database, {})
        changes = [change for item in database.work_items for change in item.mutations]
    kept = (change for change in changes if SKIPPED not in change.operator_name)
    return sorted(kept, key=lambda c: (str(c.module_path), c.operator_name, c.occurrence))


def tested(sample: Iterable[MutationSpec], python: str) -> Iterable[Mutant]:
    """Yield each change with its outcome; SystemExit where tests fail without a change."""
    limits: dict[str, float] = {}
    for change in sample:
        tests = tests_of(change.module_path)
        command = f"{python} -m pytest -q -x -p no:cacheprovider -m 'not slow' {tests}"
        if command not in limits:
            begin = time.monotonic()
            subprocess.run(command, shell=True, check=True, stdout=subprocess.DEVNULL)
            limits[command] = SLOWER * (time.monotonic() - begin)
        result = mutate_and_test([change], command, limits[command])
        assert result.test_outcome is not None, result.output
        yield Mutant(change, result.test_outcome)


def tests_of(module: Path) -> Path:
    """Return the tests that mirror a file: those of its name, else those of its folder."""
    parts = module.parts[1:] if module.parts[0] in ("models", "datasets") else module.parts
    folder = Path("tests", *parts[:-1])
    file = folder / f"test_{module.stem}.py"
    return file if file.is_file() else folder


def page(
    rows: Iterable[tuple[object, ...]], survivors: Iterable[Mutant], sample: int, seed: int
) -> str:
    """Return the page of results."""
    date = subprocess.check_output(
        ["git", "log", "-1", "--format=%cs"], cwd=ROOT, text=True
    ).strip()
    head = ("package", "possible mutants", "sampled", "killed", "survived")
    table = [f"| {' | '.join(map(str, row))} |" for row in (head, ["---"] * len(head), *rows)]
    lines = [
        "# Mutants",
        "",
        f"`python scripts/mutation.py --sample {sample} --seed {seed} --write`, code of {date}.",
        "A mutant is one change to one file (cosmic-ray). It is killed when a test that mirrors",
        "the file fails or does not end. How to run it:",
        "[CONTRIBUTING](../../CONTRIBUTING.md#mutants).",
        "",
        *table,
        "",
        "Survivors, each a test that may be missing or a change that means the same:",
        "",
        *(f"- {mutant}" for mutant in survivors),
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
