"""`wm log archive --follow` beside a recording, and `wm train --log s3://...`: real processes."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.wm_nodes.tiny import record
from wm_datasets import LogReader
from wm_datasets.remote.reader import open_log
from wm_models.weights.store import read_manifest
from wm_nodes.cli.train import weighted_log
from wm_nodes.graphs.arguments import split_logs

TRAIN = [sys.executable, str(Path(__file__).parents[1] / "train_tiny.py")]
WM = [sys.executable, "-c", "from wm_nodes.cli.main import main; raise SystemExit(main())"]
URL = "s3://logs/robot/log"
SERVER = (
    "import time; from moto.server import ThreadedMotoServer\n"
    "s = ThreadedMotoServer(ip_address='127.0.0.1', port=0, verbose=False); s.start()\n"
    "print(*s.get_host_and_port(), flush=True); time.sleep(1e6)"
)


@pytest.fixture
def start(tmp_path, monkeypatch):
    """Return a function that starts a process in the test's folder, with an S3 server."""
    pytest.importorskip("obstore")
    pytest.importorskip("moto.server")
    import boto3

    running = []

    def begin(command):
        process = subprocess.Popen(
            command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        running.append(process)
        return process

    host, port = begin([sys.executable, "-c", SERVER]).stdout.readline().split()
    for name, value in {"AWS_ENDPOINT_URL": f"http://{host}:{port}", "AWS_REGION": "us-east-1",
                        "AWS_ACCESS_KEY_ID": "someone", "AWS_SECRET_ACCESS_KEY": "secret",
                        "XDG_CACHE_HOME": str(tmp_path / "cache")}.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    boto3.client("s3", endpoint_url=os.environ["AWS_ENDPOINT_URL"],
                 region_name="us-east-1").create_bucket(Bucket="logs")  # fmt: skip
    yield begin
    for process in running:
        process.kill()
        process.wait()


def wait_for_line(process, pattern):
    """Wait for a line of the process that matches."""
    while not re.search(pattern, line := process.stdout.readline()):
        assert line, "the process ended"


@pytest.mark.timeout(180)
def test_a_remote_trainer_learns_from_a_log_during_its_recording(start, tmp_path):
    record(tmp_path / "log", 6)
    archiving = start([*WM, "log", "archive", "log", URL, "--follow", "--every-s", "0.1"])
    wait_for_line(archiving, rf"{URL}: 54 rows in 6 whole episodes; \d+ objects")

    arguments = ["--log", URL, "--run", "far", "--device", "cpu", "--seed", "1"]
    output, _ = (process := start([*TRAIN, *arguments, "--steps", "8"])).communicate()
    assert process.returncode == 0, output
    record(tmp_path / "log", 4)  # recording continues, and so does the archive
    wait_for_line(archiving, "90 rows in 10 whole episodes")
    output, _ = (process := start([*TRAIN, *arguments, "--steps", "16"])).communicate()
    assert process.returncode == 0, output
    assert read_manifest(tmp_path / "runs/far/weights").step == 16

    archiving.send_signal(signal.SIGINT)
    archiving.communicate(timeout=120)
    assert archiving.returncode == 0
    with open_log(URL) as remote, LogReader(tmp_path / "log") as local:
        assert remote.length == local.length == 90
        assert (remote.read("image/top", 0, 90) == local.read("image/top", 0, 90)).all()

    log = str(tmp_path / "log")  # the training equals that from the log itself
    for run, path in (("near", log), ("again", URL)):
        command = [*TRAIN, "--log", path, "--run", run, "--device", "cpu", "--steps", "8"]
        output, _ = (process := start(command)).communicate()
        assert process.returncode == 0, output
    assert (
        read_manifest(tmp_path / "runs/near/weights").sha256
        == read_manifest(tmp_path / "runs/again/weights").sha256
    )


@pytest.mark.timeout(120)
def test_a_killed_upload_is_continued_and_a_wrong_address_is_reported(start, tmp_path, monkeypatch):
    record(tmp_path / "log", 6)
    command = [*WM, "log", "archive", "log", URL]
    for wait_s in (0.6, 0.9):
        process = start(command)
        time.sleep(wait_s)
        process.kill()
        process.wait()
    output, _ = (process := start(command)).communicate()
    assert process.returncode == 0 and "54 rows in 6 whole episodes" in output, output
    output, _ = start([*WM, "log", "archive", "log", "bucket/log"]).communicate()
    assert "URL: got 'bucket/log', expected s3://BUCKET/FOLDER." in output
    output, _ = start([*TRAIN, "--log", "s3://logs/nothing"]).communicate()
    assert "no log at s3://logs/nothing: there is no zarr.json" in output


def test_weights_and_urls_are_distinguished():
    assert weighted_log(URL) == (URL, 1.0)
    assert weighted_log(f"{URL}:0.3") == (URL, 0.3)
    assert split_logs({"offline": f"{URL},{URL}:0.5"}) == [f"{URL}:1", f"{URL}:0.5"]
