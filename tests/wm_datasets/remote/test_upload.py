"""A log in an object store equals the local log, at every moment; on an S3 server."""

import os
import signal
import subprocess
import sys
import uuid
from pathlib import Path

import numpy as np
import pytest

from tests.wm_datasets.conftest import PATHS
from tests.wm_datasets.growing_log import append_grown, check_grown, grown_spec
from tests.wm_datasets.log_rows import append_episode, check_rows, make_spec
from tests.wm_datasets.sampling.test_sampler import FIELDS, check_joined, sampler_of
from wm_datasets import LogError, LogReader, LogSpecError, LogWriter, Sampler
from wm_datasets.remote import reader
from wm_datasets.remote.object_store import ObjectStore, is_url
from wm_datasets.remote.reader import RemoteReader, open_log
from wm_datasets.remote.upload import Archive


@pytest.fixture(scope="module")
def server():
    """The address of an S3 server in this process."""
    pytest.importorskip("obstore")
    moto_server = pytest.importorskip("moto.server")
    s3_server = moto_server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    s3_server.start()
    host, port = s3_server.get_host_and_port()
    yield f"http://{host}:{port}"
    s3_server.stop()


@pytest.fixture
def url(server, monkeypatch):
    """A fresh folder in a bucket of that server; credentials in the environment."""
    import boto3

    for name, value in {"AWS_ENDPOINT_URL": server, "AWS_ACCESS_KEY_ID": "someone",
                        "AWS_SECRET_ACCESS_KEY": "secret", "AWS_REGION": "us-east-1",
                        "AWS_DEFAULT_REGION": "us-east-1"}.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    boto3.client("s3", endpoint_url=server).create_bucket(Bucket="logs")
    return f"s3://logs/{uuid.uuid4().hex}/log"


@pytest.fixture(autouse=True)
def check_always(monkeypatch):
    """A reader always checks whether the archive has grown."""
    monkeypatch.setattr(reader, "LOOK_S", 0.0)


@pytest.fixture
def small_parts(monkeypatch):
    """Parts of 16 rows, so that an upload has many."""
    from wm_datasets.remote import upload
    from wm_datasets.storage import manifest

    chunk_rows = manifest.chunk_rows
    monkeypatch.setattr(manifest, "chunk_rows", lambda field: min(16, chunk_rows(field)))
    monkeypatch.setattr(upload, "_PART_BYTES", 1)


def test_fields_that_are_added_are_absent_in_the_archive_too(make_log, url, small_parts):
    path = make_log([20, 33])
    Archive(path, url).sync()
    with open_log(url) as log:
        with LogWriter(path, grown_spec(6)) as writer:
            append_grown(writer, 41)
        since = dict.fromkeys(grown_spec(6).fields.keys() - make_spec().fields.keys(), 53)
        archive = Archive(path, url)
        assert archive.sync().rows == 94
        log.refresh()
        check_grown(log, since)
    fresh = url.removesuffix("/log") + "/again"
    Archive(path, fresh).sync()
    for address in (url, fresh):
        with open_log(address) as log:
            check_grown(log, since)
            sampler = Sampler(log, fields=["sensor/s0", "stamp"], batch=9, length=5, seed=0)
            assert sampler.sample()["sensor/s0"].all()
            sampler.close()


def test_an_archived_log_is_read_bit_for_bit(make_log, url):
    path = make_log([20, 33, 5, 41])
    report = Archive(path, url).sync()
    assert (report.rows, report.episodes) == (99, 4)
    with open_log(url) as log, LogReader(path) as local:
        check_rows(log)
        assert np.array_equal(log.episodes, local.episodes)
        assert log.spec == local.spec


def test_any_zarr_reader_opens_the_archive(make_log, url):
    zarr = pytest.importorskip("zarr")
    path = make_log([20, 33])
    Archive(path, url).sync()
    group = zarr.open_group(ObjectStore(url)._store, mode="r")
    with LogReader(path) as local:
        for name in local.spec.fields:
            assert np.array_equal(group[name][:], local.read(name, 0, 53))


def test_uploading_again_writes_nothing_and_a_log_that_grew_adds_new_rows(path, url):
    with LogWriter(path, make_spec()) as writer:
        append_episode(writer, 40)
    first = Archive(path, url).sync()
    assert Archive(path, url).sync().objects == 0
    reader = open_log(url)
    with LogWriter(path, make_spec()) as writer:
        append_episode(writer, 20)
    again = Archive(path, url).sync()
    assert 0 < again.objects < first.objects
    assert reader.refresh() and reader.length == 60
    check_rows(reader)
    check_rows(open_log(url))


def test_no_reader_reads_an_incomplete_upload(path, url, small_parts, monkeypatch):
    """After each written object, the archive is a prefix of the log, or not a log yet."""
    with LogWriter(path, make_spec()) as writer:
        for rows in (20, 30):
            append_episode(writer, rows)
    read_lengths, write = [], ObjectStore.write

    def one_by_one(self, objects):
        for key, data in objects.items():
            write(self, {key: data})
            if self.read_one("zarr.json") is not None:
                with RemoteReader(url) as reader:
                    check_rows(reader)
                    read_lengths.append(reader.length)

    monkeypatch.setattr(ObjectStore, "write", one_by_one)
    Archive(path, url).sync()
    assert (
        read_lengths == sorted(read_lengths)
        and len(set(read_lengths)) > 3
        and read_lengths[-1] == 50
    )


def test_a_killed_upload_continues_where_it_ended(path, url, small_parts):
    """A real process is killed with -9 in the middle, again and again."""
    with LogWriter(path, make_spec()) as writer:
        for _ in range(12):
            append_episode(writer, 25)
    program = (
        f"import sys; sys.path[:0] = {PATHS!r}\n"
        "from wm_datasets.remote import upload\n"
        "upload._PART_BYTES = 1\n"
        f"archive = upload.Archive({str(path)!r}, {url!r})\n"
        "print('begin', archive.rows, flush=True)\n"
        "archive.sync(lambda rows, total: print(rows, flush=True))\n"
    )
    reached = [0]
    for _ in range(3):
        process = subprocess.Popen(
            [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, env=os.environ
        )
        begin = int(process.stdout.readline().split()[1])
        assert begin >= reached[-1]  # reported rows are uploaded
        lines = [process.stdout.readline() for _ in range(2)]
        reached.append(max([begin, *(int(line) for line in lines if line.strip())]))
        process.send_signal(signal.SIGKILL)
        process.wait()
        with RemoteReader(url) as reader:
            check_rows(reader)
            assert reader.length >= reached[-1]
    assert Archive(path, url).sync().rows == 300
    check_rows(open_log(url))


def test_a_remote_log_is_followed_and_sampled_while_it_is_recorded(path, url):
    with LogWriter(path, make_spec(), durable_s=0.01) as writer:
        append_episode(writer, 40)
        archive = Archive(path, url)
        while archive.rows < 32:  # whole segments are sealed in the background
            archive.sync()
        reader = open_log(url)
        sampler = Sampler(reader, batch=8, length=4, seed=0, fields=FIELDS, cache_bytes=1000)
        check_joined(sampler.sample())
        for _ in range(5):
            append_episode(writer, 20)
            archive.sync()
            sampler.refresh()
            check_joined(sampler.sample())
    Archive(path, url).sync()
    sampler.refresh()
    assert reader.length == 140
    numbers = sampler.sample(batch=300)["proprio"][..., 0]
    assert numbers.max() > 130


def test_batches_of_the_remote_log_equal_those_of_the_local_log(make_log, url):
    path = make_log([30, 40, 22])
    Archive(path, url).sync()
    for options in ({}, {"cache_bytes": 500}, {"cache_bytes": 500, "disk_bytes": 0}):
        remote = Sampler(open_log(url), batch=8, length=4, seed=0, fields=FIELDS, **options)
        local = sampler_of(path, join=True)
        for _ in range(10):
            a, b = local.sample(), remote.sample()
            assert all(np.array_equal(a[name], b[name]) for name in FIELDS)


def test_the_local_copy_is_bounded_and_saves_downloads(make_log, url, monkeypatch):
    path = make_log([50] * 6)
    Archive(path, url).sync()
    with RemoteReader(url, download_bytes=4000) as reader:
        check_rows(reader)
        downloaded = [f for f in reader.path.rglob("c.*") if f.parent.parent.name != "episode"]
        assert sum(f.stat().st_size for f in downloaded) <= 4000
    with RemoteReader(url) as reader:
        check_rows(reader)
    requested_keys, read = [], ObjectStore.read
    monkeypatch.setattr(
        ObjectStore, "read", lambda self, k: requested_keys.extend(k) or read(self, k)
    )
    with RemoteReader(url) as reader:  # as another process: all chunks are on the disk
        check_rows(reader)
    assert [key for key in requested_keys if "/c." in key and not key.startswith("episode")] == []


def test_rows_that_the_capacity_dropped_are_removed_from_the_archive(path, url):
    with LogWriter(path, make_spec(), capacity_steps=60, durable_s=0.01) as writer:
        archive = Archive(path, url)
        for _ in range(10):
            append_episode(writer, 20)
            archive.sync()
    archive.sync()
    with LogReader(path) as local, open_log(url) as log:
        assert (log.first, log.length) == (local.first, local.length)
        assert log.first > 0
        check_rows(log)


def test_the_archive_of_another_log_is_not_changed(make_log, tmp_path, url):
    Archive(make_log([30, 30]), url).sync()
    with pytest.raises(LogSpecError, match=r"archive: got .* which holds rows .* sealed"):
        Archive(make_log([20], "short"), url).sync()
    with LogWriter(tmp_path / "other", make_spec(task="push")) as writer:
        append_episode(writer, 80)
    with pytest.raises(LogSpecError, match=r"which is of another log, .* Differences: task"):
        Archive(tmp_path / "other", url).sync()
    with pytest.raises(
        LogSpecError, match=r"which is of another log \(id .*\), expected that of .* \(id"
    ):
        Archive(make_log([30, 30, 30], "longer"), url).sync()
    check_rows(open_log(url))


def test_an_archive_recreated_at_the_same_url_is_not_read_from_the_old_copy(make_log, url):
    import boto3

    Archive(make_log([30, 30]), url).sync()
    check_rows(open_log(url))
    bucket = boto3.resource("s3", endpoint_url=os.environ["AWS_ENDPOINT_URL"]).Bucket("logs")
    bucket.objects.filter(Prefix=url.removeprefix("s3://logs/")).delete()
    with pytest.raises(LogError, match=r"no log at s3://.*: there is no zarr.json"):
        open_log(url)
    Archive(make_log([17, 23, 25], "new"), url).sync()
    check_rows(open_log(url))


def test_damage_in_the_archive_is_named_and_loses_only_its_episodes(make_log, url):
    path = make_log([20] * 8)
    Archive(path, url).sync()
    store = ObjectStore(url)
    key = "image/front/c.2.0.0.0"
    data = bytearray(store.read_one(key))
    data[len(data) // 2] ^= 1
    store.write({key: bytes(data)})
    with open_log(url) as log:
        log.read_around("image/front", 0, log.length)
        (damage,) = log.damage
        assert damage.path.name == "c.2.0.0.0"
        check_rows(log, range(damage.start, damage.stop))
        assert len(log.intact) == 7


def test_a_store_that_cannot_be_reached_is_no_damage(make_log, url, monkeypatch):
    path = make_log([20])
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setattr("wm_datasets.remote.object_store.RETRY_S", 0.2)
    with pytest.raises(LogError, match=r"s3://logs/.* Check the address, AWS_ENDPOINT_URL"):
        Archive(path, url).sync()
    with pytest.raises(LogError, match=r"^store: got nonsense://x/y .*, expected s3://BUCKET"):
        ObjectStore("nonsense://x/y")


def test_urls_are_distinguished_from_paths():
    assert is_url("s3://bucket/log") and is_url("file:///tmp/log")
    assert not any(map(is_url, ("runs/a/log", "/a/b:1", "s3:/bucket", Path("s3://bucket/log"))))
