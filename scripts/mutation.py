"""Measure how strict the tests are: a sample of mutants, each run against the tests of its file.

    pip install cosmic-ray
    python scripts/mutation.py --sample 20 --seed 0 --write

cosmic-ray changes one place of one file at a time, in a clone of the last commit; this checkout is
not changed. A mutant is killed when a test fails, or when the tests do not end within ten minutes;
without a change they must pass (`make test`). A surviving mutant shows a missing test, or is
equivalent to the original code. The tests of `wm_nodes/control/realtime.py` are
`tests/wm_nodes/control/test_realtime.py`; a file without tests of its name is tested by all tests
of its folder. Unions (`X | None`) are not changed: in annotations they have no effect at run time.
"""

from __future__ import annotations

import argparse
import difflib
import math
import os
import random
import subprocess
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from cosmic_ray.commands import init
from cosmic_ray.mutating import use_mutation
from cosmic_ray.plugins import get_operator
from cosmic_ray.work_db import WorkDB, use_db
from cosmic_ray.work_item import MutationSpec

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "results" / "mutation.md"
PACKAGES = (
    "models/wm_models/nets",
    "models/wm_models/planners",
    "datasets/wm_datasets/storage",
    "wm_nodes/control",
    "wm_nodes/robots/arm",
)
ROOTS = ("models", "datasets", "wm_nodes")
SKIPPED = "ReplaceBinaryOperator_BitOr"
QUICK, WITH_PROCESSES = "not slow and not processes", "not slow and processes"
LIMIT_S = 600.0  # of the tests of one file or folder, on a machine that does other work, too
SURVIVED = (0, 5)  # pytest: all passed; no tests with this mark


@dataclass(frozen=True)
class Mutant:
    """One change, and the outcome of the tests."""

    change: MutationSpec
    line: str  # as changed
    killed: bool

    def __str__(self) -> str:
        place = f"{self.change.module_path}:{self.change.start_pos[0]}"
        return f"`{place}` in {self.change.definition_name or 'the module'}: `{self.line}`"


class Pytest:
    """pytest in a clone, in forks of one process (forked_tests.py)."""

    def __init__(self, python: str) -> None:
        # Python compares bytecode with its source by second and size only, so that two changes can
        # look the same. Loading unused plugins takes longer than most tests.
        self._process = subprocess.Popen(
            [python, "scripts/forked_tests.py"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ
            | {"PYTHONDONTWRITEBYTECODE": "1", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
            text=True,
        )

    def fails(self, tests: str) -> bool:
        """Return whether a test fails or they take too long."""
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(f"{LIMIT_S} -q -x -p no:cacheprovider {tests}\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline()) not in SURVIVED


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
        subprocess.run([options.python, "-m", "compileall", "-q", *ROOTS], check=True)
        pytest, mutants = Pytest(options.python), []
        for package in options.packages:
            changes = changes_of(Path(package))
            first = stages_of(changes[0].module_path, Path(package))[0]
            if pytest.fails(first):
                raise SystemExit(f"pytest {first}: a test fails without a change; expected none.")
            shuffled = random.Random(options.seed).sample(changes, len(changes))
            mutants_of = (mutant_of(change, Path(package), pytest) for change in shuffled)
            tested = list(islice(filter(None, mutants_of), options.sample))
            print(row(package, tested), flush=True)
            mutants += tested
    if options.write:
        PAGE.write_text(page(options.packages, mutants, options.sample, options.seed))


def changes_of(package: Path) -> list[MutationSpec]:
    """Return every change that cosmic-ray knows for the files of a package."""
    files = sorted(path for path in package.rglob("*.py") if path.name != "__init__.py")
    with use_db(":memory:", WorkDB.Mode.create) as database:
        init(files, database, {})
        changes = [change for item in database.work_items for change in item.mutations]
    selected = (change for change in changes if SKIPPED not in change.operator_name)
    return sorted(selected, key=lambda c: (str(c.module_path), c.operator_name, c.occurrence))


def mutant_of(change: MutationSpec, package: Path, pytest: Pytest) -> Mutant | None:
    """Make one change, test it, undo it; None where the change is no valid Python."""
    begin = time.monotonic()
    stages = stages_of(change.module_path, package)
    operator = get_operator(change.operator_name)(**change.operator_args)
    with use_mutation(change.module_path, operator, change.occurrence) as (before, after):
        if not compiles(after):
            return None
        killed = any(pytest.fails(tests) for tests in stages)
    lines = difflib.ndiff(before.splitlines(), after.splitlines())
    line = next((line for line in lines if line.startswith("+ ")), "+ (a line less)")
    mutant = Mutant(change, line[2:].strip(), killed)
    seconds = time.monotonic() - begin
    print(f"  {seconds:3.0f} s {'' if killed else 'SURVIVED '}{mutant}", flush=True)
    return mutant


def compiles(code: str) -> bool:
    """Is it valid Python? The star of keyword-only parameters counts as an operator, too."""
    try:
        compile(code, "", "exec")
    except SyntaxError:
        return False
    return True


def stages_of(module: Path, package: Path) -> list[str]:
    """Return pytest's arguments: the tests of a file's name, or all from its folder's up to the
    package's, quick ones first."""
    folder = tests_folder(module.parent)
    own = folder / f"test_{module.stem}.py"
    if own.is_file():
        return [f"-m 'not slow' {own}"]
    top = tests_folder(package)
    folders = [one for one in (folder, *folder.parents) if one.is_relative_to(top)]
    files = " ".join(str(file) for one in folders for file in sorted(one.glob("test_*.py")))
    return [f"-m '{QUICK}' {files}", f"-m '{WITH_PROCESSES}' {files}"]


def tests_folder(folder: Path) -> Path:
    """Return the folder of tests that mirrors a folder of modules."""
    first, *rest = folder.parts
    return Path("tests", *(rest if first in ("models", "datasets") else folder.parts))


def row(package: str, mutants: Sequence[Mutant]) -> str:
    """Return a package's line of the table, with Wilson's 95 % interval."""
    count, killed = len(mutants), sum(mutant.killed for mutant in mutants)
    rate, z2 = killed / count, 1.96**2
    middle = rate + z2 / 2 / count
    spread = math.sqrt(z2 * (rate * (1 - rate) + z2 / 4 / count) / count)
    low, high = ((middle + side) / (1 + z2 / count) for side in (-spread, spread))
    return f"| {package} | {count} | {killed} | {rate:.0%} ({low:.0%} to {high:.0%}) |"


def page(packages: Iterable[str], mutants: Sequence[Mutant], sample: int, seed: int) -> str:
    """Return the page of results."""
    commit = subprocess.check_output(
        ["git", "log", "-1", "--format=%h of %cs"], cwd=ROOT, text=True
    ).strip()
    of = {p: [m for m in mutants if m.change.module_path.is_relative_to(p)] for p in packages}
    lines = [
        "# Mutants",
        "",
        f"`python scripts/mutation.py --sample {sample} --seed {seed} --write`, commit {commit}.",
        "A mutant is one change to one file (cosmic-ray). It is killed when a test that mirrors",
        "the file fails or does not end. No figure depends on the machine. How to run it:",
        "[CONTRIBUTING](../../CONTRIBUTING.md#mutants).",
        "",
        "| package | sampled | killed | rate (Wilson's 95 % interval) |",
        "| --- | --- | --- | --- |",
        *(row(package, tested) for package, tested in of.items()),
        "",
        "Survivors, each a test that may be missing or a change that means the same:",
        "",
        *(f"- {mutant}" for mutant in mutants if not mutant.killed),
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
