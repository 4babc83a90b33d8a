"""Speed of uploading a log to an object store and of batches from there, with a server on this
computer: the cost of the code, without a network."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from wm_datasets.remote.reader import RemoteReader
from wm_datasets.remote.upload import Archive
from wm_datasets.sampling.sampler import Sampler
from wm_nodes.checks.bench.rows import Row
from wm_nodes.checks.bench.sampler import FIELDS, write
from wm_nodes.checks.bench.timing import measure

_SERVER = (
    "import time; from moto.server import ThreadedMotoServer\n"
    "server = ThreadedMotoServer(ip_address='127.0.0.1', port=0, verbose=False)\n"
    "server.start(); print(*server.get_host_and_port(), flush=True); time.sleep(1e6)"
)
_BUCKET = "bench"


def run(*, rows: int = 5050, repeats: int = 9) -> list[Row]:
    """A log of ``rows`` rows of 64 x 64 noise up, down, and sampled in batches of 50 x 50."""
    with tempfile.TemporaryDirectory() as folder, server():
        path, cache, url = Path(folder) / "log", Path(folder) / "cache", f"s3://{_BUCKET}/log"
        write(path, rows)
        start = time.perf_counter()
        done = Archive(path, url).sync()
        up = done.bytes / 1e6 / (time.perf_counter() - start)
        start = time.perf_counter()
        with RemoteReader(url, folder=cache) as reader:
            reader.read("image/camera", 0, rows)
            took = time.perf_counter() - start
            down = rows * reader.spec.fields["image/camera"].row_bytes / 1e6 / took
            sampler = Sampler(reader, batch=50, length=50, seed=0, fields=FIELDS)
            batch = measure(sampler.sample, repeats=repeats)
    note = f"{done.bytes / 1e6:.3g} MB in {done.objects} objects, server on this computer"
    return [
        Row("archive", "upload", up, "MB/s", better="higher", note=note),
        Row("archive", "first read, decoded", down, "MB/s", better="higher", note="wall clock"),
        batch.row("archive", "one batch, 50 x 50 rows of 64 x 64 x 3", note="rows here already"),
    ]


@contextmanager
def server() -> Iterator[None]:
    """An S3 server with an empty bucket, named in the environment in the context."""
    import boto3

    process = subprocess.Popen(
        [sys.executable, "-c", _SERVER],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    before = dict(os.environ)
    try:
        assert process.stdout is not None
        host, port = process.stdout.readline().split()
        os.environ.update(
            AWS_ENDPOINT_URL=f"http://{host}:{port}",
            AWS_REGION="us-east-1",
            AWS_ACCESS_KEY_ID="bench",
            AWS_SECRET_ACCESS_KEY="bench",
        )
        client = boto3.client(
            "s3", endpoint_url=os.environ["AWS_ENDPOINT_URL"], region_name="us-east-1"
        )
        client.create_bucket(Bucket=_BUCKET)
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
        process.kill()
        process.wait()
