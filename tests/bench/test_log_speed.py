"""Recording and sampling at the speed that the robot and the trainer need; `pytest -s` prints it.

CPU time of this process is compared, not the clock's: other programs may be running.
"""

import time

import numpy as np
import pytest

from wm_datasets import LogReader, LogSpec, LogWriter, Sampler, VectorSpec

ROWS = 3000

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def spec():
    joints = VectorSpec(tuple(f"j{i}" for i in range(39)), ("m",) * 39, (-9.0,) * 39, (9.0,) * 39)
    action = VectorSpec(("dx", "dy", "dz", "grip"), ("m",) * 4, (-1.0,) * 4, (1.0,) * 4)
    return LogSpec("sawyer", "bench", 0.02, {"front": (64, 64, 3)}, joints, action)


@pytest.fixture(scope="module")
def recorded(spec, tmp_path_factory):
    """A log of ROWS rows, and the CPU seconds that a row took with everything that follows it."""
    ramp = np.linspace(0, 200, 64 * 64 * 3).reshape(64, 64, 3)
    noise = np.random.default_rng(0).normal(0, 3, (64, 64, 64, 3))
    frames = (ramp + noise).clip(0, 255).astype(np.uint8)
    path = tmp_path_factory.mktemp("bench") / "log"
    begin = time.process_time()
    with LogWriter(path, spec) as writer:
        for t in range(ROWS):
            last = t % 500 == 499
            writer.append({
                "image/front": frames[t % 64], "proprio": np.zeros(39), "action": np.zeros(4),
                "commanded": np.zeros(4), "reward": 0.0, "is_first": t % 500 == 0,
                "is_last": last, "is_terminal": False, "success": False, "stamp": t,
                "source": 0, "weights": 1,
            })  # fmt: skip
    return path, (time.process_time() - begin) / ROWS


def test_recording_at_50_hz(recorded):
    path, seconds = recorded
    print(f"\nappend: {seconds * 1e6:.0f} us of CPU per row, {seconds * 50:.2%} of a core at 50 Hz")
    with LogReader(path) as log:
        assert log.episodes["length"].tolist() == [500] * (ROWS // 500)


def test_sampling_a_batch_compared_with_copying_its_bytes(recorded):
    sampler = Sampler(LogReader(recorded[0]), batch=50, length=50, seed=0)
    source = sampler.sample()["image/front"].copy()
    target = np.empty_like(source)
    sample, copy = [], []
    for _ in range(15):
        sample.append(cpu_seconds(sampler.sample))
        copy.append(cpu_seconds(lambda: np.copyto(target, source)))
    ratio = np.median(sample) / np.median(copy)
    print(f"\nsample: {np.median(sample) * 1e3:.2f} ms, {ratio:.2f} times a copy of the frames")
    assert target.shape == (50, 50, 64, 64, 3) and target.any()


def cpu_seconds(call):
    begin = time.thread_time()
    call()
    return time.thread_time() - begin
