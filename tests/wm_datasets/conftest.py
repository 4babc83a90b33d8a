import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.wm_datasets import log_rows
from wm_datasets import LogWriter

HERE = Path(__file__).parent
PATHS = [str(HERE.parents[1]), str(HERE.parents[1] / "datasets")]  # of programs that tests start


@pytest.fixture(autouse=True)
def quick(monkeypatch, request):
    """Small blocks, and no fsync: no test in this process cuts the power."""
    from wm_datasets.storage import column, manifest

    monkeypatch.setattr(manifest, "_SEGMENT_BYTES", 1)
    monkeypatch.setattr(column, "_CHUNK_BYTES", 512)
    monkeypatch.setattr(os, "fsync", lambda fd: None)


@pytest.fixture(autouse=True)
def cache_of_the_test(monkeypatch, tmp_path_factory):
    """Decoded rows are written to a folder of this test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "log"


@pytest.fixture
def make_log(tmp_path):
    """Return a function: episode lengths -> path of a closed log with those episodes."""

    def make(lengths, name="log", **options):
        with LogWriter(tmp_path / name, log_rows.make_spec(), **options) as writer:
            for rows in lengths:
                log_rows.append_episode(writer, rows)
        return tmp_path / name

    return make


@pytest.fixture
def start_writer():
    """Return a function that starts a real writer process and waits until it has the log."""
    running = []

    def start(path, *, rows=10**9, capacity=0, pause_s=0.0005):
        folders = [*PATHS, os.environ.get("PYTHONPATH", "")]
        process = subprocess.Popen(
            [sys.executable, str(HERE / "log_rows.py"), str(path), str(rows), str(capacity),
             str(pause_s)],
            stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": ":".join(folders)},
        )  # fmt: skip
        running.append(process)
        assert process.stdout.readline() == "ready\n"
        return process

    yield start
    for process in running:
        process.kill()
        process.wait()
