"""describe() summarises the content of a log."""

import json

import numpy as np

from tests.wm_datasets.log_rows import append_episode, make_row, make_spec
from wm_datasets import LogReader, LogWriter, Source, describe


def append(writer, rewards, source, weights, success):
    for step, reward in enumerate([*rewards, 0.0]):
        last = step == len(rewards)
        row = make_row(writer.length, step, last)
        row |= {"reward": reward, "source": source, "weights": weights, "success": success}
        writer.append(row)


def test_counts_returns_and_success_by_source(path):
    with LogWriter(path, make_spec()) as writer:
        append(writer, [1.0, 2.0], Source.POLICY, 3, True)
        append(writer, [1.0] * 30, Source.POLICY, 4, False)
        append(writer, [5.0], Source.SCRIPT, -1, True)
        append_episode(writer, 4, complete=False)
        summary = describe(path)
    assert (summary.rows, summary.episodes, summary.complete) == (3 + 31 + 2 + 4, 4, 3)
    assert summary.steps == 2 + 30 + 1 + 4
    assert summary.seconds == summary.steps * 0.05
    assert summary.returns.tolist() == [3.0, 30.0, 5.0, 2.0]
    assert summary.total.successes == 2
    assert {k: (t.episodes, t.successes, t.mean_return) for k, t in summary.per_source.items()} == {
        "policy": (2, 1, 16.5), "random": (1, 0, 2.0), "script": (1, 1, 5.0)
    }  # fmt: skip
    assert {k: t.success_rate for k, t in summary.per_weights.items()} == {-1: 0.5, 3: 1.0, 4: 0.0}


def test_sizes_and_fields_are_those_on_the_disk(make_log):
    path = make_log([20, 20])
    summary = describe(LogReader(path))
    assert summary.bytes_on_disk == sum(p.stat().st_size for p in path.rglob("*") if p.is_file())
    assert summary.fields["image/front"].shape == (4, 6, 3)
    assert 0 < summary.fields["image/front"].bytes_on_disk < summary.bytes_on_disk
    assert summary.sealed_rows == summary.rows == 40
    json.dumps(summary.to_json(), allow_nan=False)


def test_an_empty_log_and_one_without_rewards(path, tmp_path):
    LogWriter(path, make_spec()).close()
    empty = describe(path)
    assert (empty.rows, empty.episodes, empty.total.success_rate) == (0, 0, 0.0)
    video = make_spec(action=None)
    with LogWriter(tmp_path / "video", video) as writer:
        writer.append({k: v for k, v in make_row(0, 0, False).items() if k in video.fields})
    summary = describe(tmp_path / "video")
    assert summary.total.mean_return is None
    assert summary.returns.shape == (0,)
    json.dumps(summary.to_json(), allow_nan=False)


def test_dropped_episodes_are_not_counted(path):
    with LogWriter(path, make_spec(), capacity_steps=30) as writer:
        for _ in range(20):
            append_episode(writer, 10)
    summary = describe(path)
    assert (summary.first, summary.rows, summary.episodes) == (170, 30, 3)
    assert np.allclose(summary.returns, 4.5)
