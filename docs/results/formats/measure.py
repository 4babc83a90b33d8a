"""Export and import of every format: `python measure.py > formats.csv`.

A log of 2000 rows in 20 episodes with one camera of 64 x 64, like a recording of a robot.
"""

from __future__ import annotations

import csv
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from wm_datasets import LogReader, LogSpec, LogWriter, VectorSpec
from wm_datasets.formats import Options, load_format
from wm_datasets.formats.transfer import export_from, import_into

EPISODES, ROWS, SIDE = 20, 100, 64
CASES: list[tuple[str, dict[str, Any]]] = [
    ("rosbag", {"layout": "mcap"}),
    ("rosbag", {"layout": "sqlite3"}),
    ("rosbag", {"lossy": True}),
    ("lerobot", {"version": "v3.0"}),
    ("lerobot", {"version": "v2.1"}),
    ("lerobot", {"version": "v3.0", "lossy": True}),
    ("lerobot", {"version": "v2.1", "lossy": True}),
    ("robomimic", {}),
    ("dino_wm", {"layout": "point_maze"}),
    ("video", {}),
]


def record(path: Path) -> None:
    """Write the log: a disc that moves over a noisy ground, and the other fields of a recording."""
    random = np.random.default_rng(0)
    proprio = VectorSpec(("x", "y", "grip"), ("m", "m", "1"), (-1,) * 3, (1,) * 3)
    action_spec = VectorSpec(("dx", "dy"), ("m/s", "m/s"), (-1,) * 2, (1,) * 2)
    spec = LogSpec("arm", "reach", 0.05, {"front": (SIDE, SIDE, 3)}, proprio, action_spec)
    y, x = np.mgrid[:SIDE, :SIDE]
    ground = random.integers(90, 110, (SIDE, SIDE, 3), np.uint8)
    with LogWriter(path, spec) as writer:
        for row in range(EPISODES * ROWS):
            step = row % ROWS
            last, success = step == ROWS - 1, step >= ROWS - 2
            centre = 32 + 20 * np.array([np.sin(step / 9), np.cos(step / 7 + row // ROWS)])
            frame = ground.copy()
            frame[(x - centre[0]) ** 2 + (y - centre[1]) ** 2 < 40] = (220, 40, 40)
            action = random.uniform(-1, 1, 2) * (not last)
            writer.append({
                "image/front": frame, "proprio": [*(centre / 64), 0.5], "action": action,
                "commanded": 1.1 * action, "reward": float(success and not last),
                "is_first": step == 0, "is_last": last, "is_terminal": False, "success": success,
                "stamp": 50_000_000 * (row + 1), "source": 0, "weights": 3,
            })  # fmt: skip


def differing(one: LogReader, other: LogReader) -> list[str]:
    """Return the fields that differ after the round trip."""
    return [
        name for name in one.spec.fields
        if name not in other.spec.fields
        or one.read(name, 0, EPISODES * ROWS).tobytes()
        != other.read(name, 0, EPISODES * ROWS).tobytes()
    ]  # fmt: skip


def main() -> None:
    table = csv.writer(sys.stdout)
    table.writerow("format options announced out_s megabytes back_s differing".split())
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        record(log)
        for number, (name, options) in enumerate(CASES):
            exported, restored = Path(folder) / f"there{number}", Path(folder) / f"back{number}"
            with LogReader(log) as reader:
                begin = time.perf_counter()
                exporter = load_format(name).Export(reader, Options(**options))
                export_from(reader, exporter, exported)
                out_s = time.perf_counter() - begin
                files = [p for p in [exported, *exported.rglob("*")] if p.is_file()]
                begin = time.perf_counter()
                with load_format(name).Import(exported, Options()) as source:
                    import_into(source, name, restored)
                back_s = time.perf_counter() - begin
                with LogReader(restored) as other:
                    differences = differing(reader, other)
            settings = " ".join(f"{k}={v}" for k, v in options.items())
            size = sum(p.stat().st_size for p in files) / 1e6
            table.writerow([name, settings, len(exporter.losses), f"{out_s:.2f}", f"{size:.1f}",
                            f"{back_s:.2f}", " ".join(differences) or "nothing"])  # fmt: skip


if __name__ == "__main__":
    main()
