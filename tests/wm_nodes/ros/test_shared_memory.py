"""Files in shared memory: those of ended processes are removed, those of running ones never."""

from __future__ import annotations

import fcntl
import mmap
from pathlib import Path

import pytest

from wm_nodes.ros.shared_memory import remove_dead

SEGMENT, OTHER, PORT = "fastdds_0123456789abcdef", "fastdds_fedcba9876543210", "fastdds_port48911"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in (SEGMENT, OTHER, PORT):
        (tmp_path / name).write_bytes(bytes(4096))
        (tmp_path / f"{name}_el").touch()
    return tmp_path


def remaining(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_segments_that_no_process_holds_are_removed_and_ports_stay(folder: Path) -> None:
    others = ("other", "fastdds_0123_el", "fastdds_nothex6789abcdef", "fastdds_00000000000000ff")
    for name in others:
        (folder / name).touch()  # the last has no lock file: its owner is not known
    assert sorted(remove_dead(folder, young_s=0)) == [SEGMENT, OTHER]
    assert remaining(folder) == {*others, PORT, f"{PORT}_el"}


def test_locked_mapped_and_new_files_stay(folder: Path) -> None:
    before = remaining(folder)
    assert remove_dead(folder) == [] and remaining(folder) == before
    with (folder / f"{SEGMENT}_el").open() as lock, (folder / OTHER).open("rb") as other:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with mmap.mmap(other.fileno(), 0, prot=mmap.PROT_READ):
            assert remove_dead(folder, young_s=0) == [] and remaining(folder) == before
    assert len(remove_dead(folder, young_s=0)) == 2


def test_links_and_missing_folders_are_not_changed(folder: Path, tmp_path: Path) -> None:
    target = tmp_path / "kept"
    target.touch()
    (folder / f"{OTHER}_el").unlink()
    (folder / f"{OTHER}_el").symlink_to(target)
    assert remove_dead(folder, young_s=0) == [SEGMENT]
    assert target.exists() and remove_dead(tmp_path / "none") == []
