"""Rows on the training device are the sampler's rows, and training with them is the same."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.tensors import assert_same_tensors
from tests.wm_nodes.tiny import TINY, record
from wm_datasets import LogReader, LogReadError, Sampler
from wm_models.registry import PRESETS
from wm_nodes.training.config import TrainingConfig
from wm_nodes.training.device_cache import DeviceCache
from wm_nodes.training.loop import Trainer

FIELDS = {"image": "image/top", "action": "action", "is_first": "is_first"}


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request):
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    return request.param


@pytest.fixture
def logs(tmp_path):
    return [record(tmp_path / "a", 6), record(tmp_path / "b", 4, seed=1)]


def test_windows_gathered_on_the_device_are_the_sampler_s(logs, device):
    readers = [LogReader(path) for path in logs]
    cache = DeviceCache(readers, FIELDS, 1 << 24, device)
    sampler = Sampler([(r, 1.0) for r in readers], batch=16, length=4, seed=0, fields=FIELDS)
    for _ in range(3):
        record(logs[0], 1)
        cache.follow()
        sampler.refresh()
        drawn = sampler.draw(16, 4)
        rows, expected = cache.gather(*drawn), sampler.sample(16, 4, drawn)
        assert rows.keys() == expected.keys()
        for name, value in expected.items():
            assert rows[name].device.type == device
            assert np.array_equal(rows[name].cpu().numpy(), value)


def test_the_budget_holds_the_newest_rows_and_no_others_are_gathered(logs):
    reader = LogReader(logs[0])
    row = sum(reader.spec.fields[field].row_bytes for field in FIELDS.values())
    cache = DeviceCache([reader], FIELDS, 20 * row, "cpu")
    cache.follow()
    log_indices, newest = np.zeros(1, int), np.arange(reader.length - 4, reader.length)[None]
    assert np.array_equal(
        cache.gather(log_indices, newest)["image"][0].numpy(),
        reader.read("image/top", reader.length - 4, reader.length),
    )
    assert cache.gather(log_indices, newest - 17) == {}


def test_rows_that_were_half_overwritten_are_not_gathered(logs, monkeypatch):
    reader = LogReader(logs[0])
    row = sum(reader.spec.fields[field].row_bytes for field in FIELDS.values())
    cache = DeviceCache([reader], FIELDS, 20 * row, "cpu")
    cache.follow()
    oldest, before = reader.length - 20, reader.length
    record(logs[0], 1)
    read_around = LogReader.read_around

    def refuse(self, field, *args):
        if field == "is_first":
            raise LogReadError("no descriptors")
        return read_around(self, field, *args)

    with monkeypatch.context() as patch:
        patch.setattr(LogReader, "read_around", refuse)
        with pytest.raises(LogReadError):
            cache.follow()
    for start in range(oldest, before - 3):
        gathered = cache.gather(np.zeros(1, int), np.arange(start, start + 4)[None])
        for name, values in gathered.items():
            expected = reader.read(FIELDS[name], start, start + 4)
            assert np.array_equal(values[0].numpy(), expected)


@pytest.mark.parametrize("budget", [1 << 24, 40_000])
def test_training_from_cached_rows_is_the_same_bit_for_bit(logs, tmp_path, monkeypatch, budget):
    monkeypatch.setitem(PRESETS, "tiny", TINY)

    def learn(name, **options):
        pairs = tuple((path, 1.0) for path in logs)
        config = TrainingConfig(tmp_path / name, pairs, model="tiny", device="cpu", pace=False,
                             publish_s=1e9, **options)  # fmt: skip
        trainer = Trainer(config)
        for _ in range(8):
            trainer.step()
        return trainer.model.state_dict()

    uncached, cached = learn("plain"), learn("resident", resident_bytes=budget)
    assert_same_tensors(cached, uncached)


def test_batches_may_be_in_memory_that_the_caller_allocates(logs):
    allocated = []

    def allocate(shape, dtype):
        allocated.append(
            torch.empty(shape, dtype=torch.from_numpy(np.empty(0, dtype)).dtype).numpy()
        )
        return allocated[-1]

    reader, options = LogReader(logs[0]), {"batch": 4, "length": 3, "seed": 0, "fields": FIELDS}
    batch = Sampler(reader, allocate=allocate, **options).sample()
    assert {id(array) for array in batch.values()} == {id(array) for array in allocated}
    plain = Sampler(reader, **options).sample()
    assert all(np.array_equal(batch[name], plain[name]) for name in FIELDS)
