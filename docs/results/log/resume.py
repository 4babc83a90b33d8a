"""Compare a killed and resumed `wm train` with an uninterrupted one: python resume.py > resume.csv

The model `tiny` of the tests learns from two logs, in separate processes: once without a break, and
once killed with -9 at random moments (seed 0) and resumed. The files of both are compared.
"""

from __future__ import annotations

import csv
import hashlib
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).parents[3]
sys.path[:0] = [str(ROOT), str(ROOT / "models"), str(ROOT / "datasets")]

from tests.wm_nodes.tiny import record  # noqa: E402
from wm_models.weights.store import WeightStore  # noqa: E402

UPDATES, KILLS = 1000, 5
LONGEST_S = 2.0  # from a state that is newer than the last one to the kill
LOGS = [("a", 12, 0, "a"), ("b", 8, 1, "b:0.3")]  # name, episodes, seed, --log argument


def start(folder: Path, run: str) -> subprocess.Popen[str]:
    """Start the run, or resume it."""
    program = ROOT / "tests" / "wm_nodes" / "train_tiny.py"
    arguments = [argument for *_, log in LOGS for argument in ("--log", log)]
    arguments += ["--run", run, "--steps", str(UPDATES), "--publish-s", "0.2", "--seed", "3"]
    arguments += ["--device", "cpu"]
    return subprocess.Popen(
        [sys.executable, str(program), *arguments], cwd=folder, text=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT,
    )  # fmt: skip


def state(run: Path) -> dict[str, Any]:
    """Return the state that the run would resume from; {} before the first one."""
    path = run / "trainer" / "state.pt"
    saved: dict[str, Any] = torch.load(path, weights_only=True) if path.exists() else {}
    return saved


def updates(run: Path) -> int:
    return int(state(run)["learner"]["updates"]) if state(run) else 0


def digests(run: Path) -> dict[str, str]:
    """Return digests of the weights, of optimisers, generators and schedules, of the sampler, and
    of the metrics."""
    store = WeightStore(run / "weights")
    files = sorted(store.path(store.latest() or 0).glob("*.safetensors"))
    saved = state(run)
    with (run / "metrics" / "train.csv").open() as file:
        rows = [line[1:] for line in csv.reader(file)]  # without the time
    return {
        "weights": hashlib.sha256(b"".join(f.read_bytes() for f in files)).hexdigest(),
        "learner": _digest(saved["learner"]),
        "sampler": _digest(saved["sampler"]),
        "metrics": _digest(rows),
    }


def _digest(nest: Any) -> str:
    digest = hashlib.sha256()

    def add(part: Any) -> None:
        if isinstance(part, dict):
            for key in sorted(part, key=str):
                digest.update(str(key).encode())
                add(part[key])
        elif isinstance(part, (list, tuple)):
            for item in part:
                add(item)
        elif isinstance(part, torch.Tensor):
            digest.update(part.contiguous().view(-1).view(torch.uint8).numpy().tobytes())
        else:
            digest.update(repr(part).encode())

    add(nest)
    return digest.hexdigest()


def main() -> None:
    table, rng = csv.writer(sys.stdout), random.Random(0)
    table.writerow(("what", "updates", "value"))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for log, episodes, seed, _ in LOGS:
            record(folder / log, episodes, seed=seed)
        uninterrupted, killed = folder / "runs" / "uninterrupted", folder / "runs" / "killed"
        if start(folder, "uninterrupted").wait():
            sys.exit("the uninterrupted run failed")
        for number in range(KILLS):
            before, process = updates(killed), start(folder, "killed")
            while process.poll() is None and updates(killed) <= before:
                time.sleep(0.02)
            time.sleep(rng.uniform(0.0, LONGEST_S))
            process.kill()
            ended = process.wait()
            table.writerow((f"kill {number + 1}", updates(killed), f"exit {ended}"))
            if ended == 0:
                break
        if start(folder, "killed").wait():
            sys.exit("the killed run could not be resumed")
        one, two = digests(uninterrupted), digests(killed)
        for part, value in one.items():
            same = "the same" if value == two[part] else f"DIFFERS: {two[part]}"
            table.writerow((f"{part}, sha256", UPDATES, f"{value} {same}"))


if __name__ == "__main__":
    main()
