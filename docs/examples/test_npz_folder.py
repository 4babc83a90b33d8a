"""Episodes are restored exactly; a broken file is named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from docs.examples.npz_folder import Export, Import
from wm_datasets import LogReader, LogSpec, LogWriter, Source, VectorSpec
from wm_datasets.formats.base import CorruptInputError, Options
from wm_datasets.formats.transfer import export_from, import_into

JOINTS = VectorSpec(("shoulder", "elbow"), ("rad", "rad"), (-3, -3), (3, 3))
SPEC = LogSpec(
    robot="arm",
    task="reach",
    control_period_s=0.1,
    cameras={"front": (4, 6, 3)},
    proprio=JOINTS,
    action=JOINTS,
)
LENGTHS = (5, 3)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    with LogWriter(tmp_path / "log", SPEC) as writer:
        for length in LENGTHS:
            for step in range(length):
                action = random.uniform(-1, 1, 2) * (step < length - 1)
                writer.append(
                    {
                        "image/front": random.integers(0, 256, (4, 6, 3), np.uint8),
                        "proprio": random.uniform(-1, 1, 2),
                        "action": action,
                        "commanded": action,
                        "reward": 0.5 * (step < length - 1),
                        "is_first": step == 0,
                        "is_last": step == length - 1,
                        "is_terminal": False,
                        "success": step == length - 1,
                        "stamp": 100_000_000 * (writer.length + 1),
                        "source": Source.RANDOM,
                        "weights": -1,
                    }
                )
    return tmp_path / "log"


def export(log: Path, folder: Path) -> None:
    with LogReader(log) as reader:
        exporter = Export(reader, Options())
        assert exporter.losses == []
        export_from(reader, exporter, folder)


def test_every_field_is_restored(log: Path, tmp_path: Path) -> None:
    export(log, tmp_path / "folder")
    with Import(tmp_path / "folder", Options()) as importer:
        import_into(importer, "npz", tmp_path / "back")
    with LogReader(log) as one, LogReader(tmp_path / "back") as other:
        assert one.spec.differences(other.spec) == []
        assert one.episodes.tolist() == other.episodes.tolist()
        for name in one.spec.fields:
            rows, restored = (reader.read(name, 0, sum(LENGTHS)) for reader in (one, other))
            np.testing.assert_array_equal(rows, restored, err_msg=name)


@pytest.mark.parametrize("file", ["spec.json", "episode_000001.npz"])
def test_a_broken_file_is_named(log: Path, tmp_path: Path, file: str) -> None:
    export(log, tmp_path / "folder")
    (tmp_path / "folder" / file).write_text("damaged")
    with (
        pytest.raises(CorruptInputError, match=file),
        Import(tmp_path / "folder", Options()) as importer,
    ):
        import_into(importer, "npz", tmp_path / "back")
