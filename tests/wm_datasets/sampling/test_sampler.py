"""Windows are drawn with the stated odds, over and within episodes, repeatably."""

import gc
import json
import mmap

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from tests.wm_datasets.log_rows import append_episode, make_row, make_spec
from wm_datasets import LogEmptyError, LogReader, LogRowError, LogSpecError, LogWriter, Sampler
from wm_datasets.sampling.memory_cache import roomy

SLOW = {"deadline": None, "suppress_health_check": list(HealthCheck)}
FIELDS = ["proprio", "is_first", "is_last", "image/front"]


def sampler_of(path, **options):
    """A sampler of windows inside episodes, unless `options` say otherwise."""
    values = {"batch": 8, "length": 4, "seed": 0, "fields": FIELDS, "join": False}
    return Sampler(LogReader(path), **(values | options))


def write(tmp_path_factory, lengths):
    path = tmp_path_factory.mktemp("sampler") / "log"
    with LogWriter(path, make_spec()) as writer:
        for rows in lengths:
            append_episode(writer, rows)
    return path


def starts_of(sampler, count, length):
    """The rows with which drawn windows begin, (count,)."""
    return sampler.draw(count, length)[1][:, 0]


def first_rows(batch):
    """The row with which each window begins."""
    return batch["proprio"][:, 0, 0].astype(int)


def check_windows(batch):
    """Every window holds consecutive rows of one episode, all fields from the same rows."""
    numbers, steps = batch["proprio"][..., 0], batch["proprio"][..., 1]
    assert (np.diff(numbers, axis=1) == 1).all()
    assert (np.diff(steps, axis=1) == 1).all()
    assert not batch["is_first"][:, 1:].any()
    assert not batch["is_last"][:, :-1].any()
    assert (batch["image/front"][..., 0, 0, 0] == numbers % 251).all()


def check_joined(batch):
    """Every row follows the one before it, or begins an episode; all fields from the same rows."""
    numbers, steps = batch["proprio"][..., 0], batch["proprio"][..., 1]
    consecutive = np.diff(numbers, axis=1) == 1
    assert (consecutive | batch["is_first"][:, 1:]).all()
    assert (batch["is_first"][:, 1:] | ~batch["is_last"][:, :-1]).all()
    assert (batch["is_first"] == (steps == 0)).all()
    assert (batch["image/front"][..., 0, 0, 0] == numbers % 251).all()


@settings(max_examples=25, **SLOW)
@given(
    lengths=st.lists(st.integers(1, 12), min_size=1, max_size=8),
    length=st.integers(1, 8),
    ends=st.integers(0, 5),
    per_episode=st.booleans(),
)
def test_windows_inside_episodes_never_cross_and_every_one_is_reached(
    tmp_path_factory, lengths, length, ends, per_episode
):
    path = write(tmp_path_factory, lengths)
    begins = np.cumsum([0, *lengths[:-1]])
    valid = {b + i for b, n in zip(begins, lengths) for i in range(n - length + 1)}
    sampler = sampler_of(path, length=length, ends=ends, per_episode=per_episode)
    if not valid:
        with pytest.raises(LogEmptyError, match=f"longest episode has {max(lengths)}"):
            sampler.sample()
        return
    batch = sampler.sample(batch=64)
    check_windows(batch)
    assert batch["image/front"].shape == (64, length, 4, 6, 3)
    assert set(starts_of(sampler, 3000, length).tolist()) == valid


@settings(max_examples=25, **SLOW)
@given(
    lengths=st.lists(st.integers(1, 12), min_size=1, max_size=8),
    length=st.integers(1, 15),
    ends=st.integers(0, 5),
    per_episode=st.booleans(),
    recency=st.sampled_from([None, 7.0]),
    excluded=st.integers(0, 7),
)
def test_joined_windows_continue_at_the_next_episode_that_is_drawn_from(
    tmp_path_factory, lengths, length, ends, per_episode, recency, excluded
):
    path, drawn = write(tmp_path_factory, lengths), np.arange(len(lengths)) != excluded
    sampler = sampler_of(
        path, length=length, ends=ends, per_episode=per_episode, recency=recency, join=True,
        episodes=lambda table: drawn[: len(table)],
    )  # fmt: skip
    begins = np.cumsum([0, *lengths[:-1]])
    ring = np.concatenate(
        [b + np.arange(n) for b, n, k in zip(begins, lengths, drawn) if k] or [[]]
    )
    if len(ring) < length:
        with pytest.raises(LogEmptyError, match=f"no window of {length} rows"):
            sampler.sample()
        return
    following = dict(zip(ring, np.roll(ring, -1)))
    batch = sampler.sample(batch=64)
    check_joined(batch)
    for window in batch["proprio"][..., 0].tolist():
        assert window == [window[0], *(following[row] for row in window[:-1])]
    if recency is not None:
        assert (np.diff(batch["proprio"][..., 0], axis=1) > 0).all()  # never newest to oldest


@settings(max_examples=15, **SLOW)
@given(
    lengths=st.lists(st.integers(1, 12), min_size=1, max_size=5),
    length=st.integers(1, 4),
    ends=st.integers(0, 5),
    per_episode=st.booleans(),
    join=st.booleans(),
)
def test_the_odds_are_the_stated_ones(tmp_path_factory, lengths, length, ends, per_episode, join):
    lengths = [n if join else n + 3 for n in [*lengths, 4]]
    sampler = sampler_of(
        write(tmp_path_factory, lengths), length=length, ends=ends, per_episode=per_episode,
        join=join,
    )  # fmt: skip
    odds = np.zeros(sum(lengths))
    for begin, n in zip(np.cumsum([0, *lengths[:-1]]), lengths):
        last = max(n - length, 0)
        tickets = np.zeros(n)
        tickets[: n if join and not per_episode else last + 1] = 1
        tickets[last] += ends
        odds[begin : begin + n] = tickets / (tickets.sum() if per_episode else 1)
    odds /= odds.sum()
    count = 40_000
    frequencies = np.bincount(starts_of(sampler, count, length), minlength=len(odds)) / count
    assert np.abs(frequencies - odds).max() < 5 * np.sqrt(odds.max() / count) + 1e-9


def test_every_row_is_drawn_equally_often_by_default(make_log):
    """Pearson's chi-square over the rows of windows that begin at independent rows."""
    lengths, length = [3, 40, 7, 1, 25, 4], 10
    rows = Sampler(LogReader(make_log(lengths)), batch=1, length=1, seed=0).draw(80_000, length)[1]
    for position in range(length):
        counts = np.bincount(rows[:, position], minlength=sum(lengths))
        assert chisquare(counts).pvalue > 1e-3


@pytest.mark.parametrize("per_episode", [False, True])
def test_successes_shorter_than_the_window_are_drawn(make_log, per_episode):
    """20 failures of 100 rows, then 80 successes of 30: no window of 50 lies in a success."""
    path = make_log([100] * 20 + [30] * 80)
    sampler = sampler_of(path, length=50, per_episode=per_episode, join=True)
    rows = sampler.draw(4000, 50)[1]
    share = (rows >= 2000).mean()
    assert np.isclose(share, 0.8 if per_episode else 2400 / 4400, atol=0.02)


@settings(max_examples=15, **SLOW)
@given(
    lengths=st.lists(st.integers(1, 15), min_size=1, max_size=5),
    length=st.integers(1, 4),
    half_life=st.floats(1.0, 50.0),
    ends=st.integers(0, 5),
    per_episode=st.booleans(),
    join=st.booleans(),
)
def test_recent_windows_have_the_stated_odds(
    tmp_path_factory, lengths, length, half_life, ends, per_episode, join
):
    lengths = [n if join else n + 3 for n in [*lengths, 4]]
    sampler = sampler_of(
        write(tmp_path_factory, lengths), length=length, recency=half_life, ends=ends,
        per_episode=per_episode, join=join,
    )  # fmt: skip
    odds, newest = np.zeros(sum(lengths)), sum(lengths) - length
    for begin, n in zip(np.cumsum([0, *lengths[:-1]]), lengths):
        most = n if join and not per_episode else max(n - length, 0) + 1
        rows = np.arange(begin, min(begin + most, newest + 1))
        if not len(rows):
            continue
        tickets = 0.5 ** ((newest - rows) / half_life) if not per_episode else np.ones(len(rows))
        last = min(max(n - length, 0), newest - begin)
        tickets[last] += ends * (tickets[last] if not per_episode else 1)
        if per_episode:
            tickets *= 0.5 ** ((newest - rows[-1]) / half_life) / tickets.sum()
        odds[rows] = tickets
    odds /= odds.sum()
    count = 40_000
    frequencies = np.bincount(starts_of(sampler, count, length), minlength=len(odds)) / count
    assert np.abs(frequencies - odds).max() < 5 * np.sqrt(odds.max() / count) + 1e-9


def test_recency_of_any_length_is_safe_in_a_long_log(make_log):
    path = make_log([30] * 20)
    for half_life in (0.01, 1e12):
        starts = starts_of(sampler_of(path, recency=half_life), 2000, 4)
        assert starts.min() >= 0 and starts.max() == 596
        assert half_life > 1 or (starts == 596).all()
    with pytest.raises(LogSpecError, match=r"recency: got .*, expected a half-life > 0"):
        sampler_of(path, recency=0.0)


@pytest.mark.parametrize("per_episode", [True, False])
def test_the_state_of_a_recency_sampler_continues_exactly(make_log, per_episode):
    path = make_log([30, 40, 50])
    options = {"recency": 20.0, "per_episode": per_episode}
    sampler = sampler_of(path, **options)
    sampler.sample()
    state = json.loads(json.dumps(sampler.state_dict()))
    expected = [first_rows(sampler.sample()) for _ in range(10)]
    resumed = sampler_of(path, seed=9, **options)
    resumed.load_state_dict(state)
    assert all(np.array_equal(first_rows(resumed.sample()), rows) for rows in expected)


@pytest.mark.parametrize("ends", [50, 1])
def test_ends_follow_the_formula_of_the_mwm_release(make_log, ends):
    """start = min(randint(L - T + 1 + minlen), L - T): minlen 50 on Meta-World, 1 on RLBench."""
    sampler = sampler_of(make_log([200]), length=50, per_episode=True, ends=ends, join=True)
    starts = starts_of(sampler, 40_000, 50)
    odds = (1 + ends) / (151 + ends)
    assert abs((starts == 150).mean() - odds) < 5 * np.sqrt(odds / len(starts))


def test_episodes_whose_evaluation_mark_is_lost_are_not_drawn(path):
    with LogWriter(path, make_spec(evaluation=True)) as writer:
        for episode in range(60):
            for step in range(10):
                row = make_row(writer.length, step, step == 9)
                writer.append(row | {"evaluation": episode % 2 == 1})
    lost = path / "evaluation" / "c.0"
    lost.unlink()
    with LogReader(path) as reader:
        chunk = reader.chunk_rows("evaluation")
        assert not (reader.learnable["start"] < chunk).any()
        if not len(reader.learnable):
            return
        assert (starts_of(sampler_of(path), 100, 1) >= chunk).all()


def test_evaluation_episodes_are_never_drawn(path):
    with LogWriter(path, make_spec(evaluation=True)) as writer:
        for episode, rows in enumerate([9, 12, 5, 30, 7]):
            for step in range(rows):
                row = make_row(writer.length, step, step == rows - 1)
                writer.append(row | {"evaluation": episode in (1, 4)})
        sampler = sampler_of(path, join=True)
        assert set(starts_of(sampler, 2000, 4).tolist()) == {*range(9), *range(21, 56)}
        check_joined(sampler.sample(batch=500))
    with LogWriter(path.with_name("evaluated"), make_spec(evaluation=True)) as writer:
        for step in range(20):
            writer.append(make_row(step, step, step == 19) | {"evaluation": True})
    with pytest.raises(LogEmptyError, match=r"0 rows to draw from \(20 more are of evaluation"):
        sampler_of(writer.path).sample()


@pytest.mark.parametrize("cache_rows", [1, 7, 40, 100])
def test_the_cache_changes_the_speed_only(make_log, cache_rows):
    path = make_log([9, 30, 2, 26])
    row_bytes = sum(LogReader(path).spec.fields[name].row_bytes for name in FIELDS)
    unbounded = sampler_of(path, join=True)
    bounded = sampler_of(path, cache_bytes=cache_rows * row_bytes, disk_bytes=0, join=True)
    assert bounded._caches[0].capacity == cache_rows
    for _ in range(20):
        a, b = unbounded.sample(), bounded.sample()
        check_joined(b)
        for name in FIELDS:
            assert np.array_equal(a[name], b[name])


def test_equal_seeds_give_equal_batches_and_others_do_not(make_log):
    path = make_log([30, 40])
    one, same, other = (first_rows(sampler_of(path, seed=s, batch=64).sample()) for s in (1, 1, 2))
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


def test_state_dict_continues_exactly_also_when_the_log_grew(path):
    with LogWriter(path, make_spec()) as writer:
        append_episode(writer, 30)
        for step in range(10):
            writer.append(make_row(writer.length, step, False))
        sampler = sampler_of(path)
        sampler.sample()
        state = json.loads(json.dumps(sampler.state_dict()))
        expected = [first_rows(sampler.sample()) for _ in range(20)]
        for step in range(10, 40):
            writer.append(make_row(writer.length, step, False))
        resumed = sampler_of(path, seed=99)
        resumed.load_state_dict(state)
        assert all(np.array_equal(first_rows(resumed.sample()), rows) for rows in expected)
        assert resumed.state_dict()["rng"] == sampler.state_dict()["rng"]
        resumed.refresh()
        assert max(first_rows(resumed.sample(batch=200))) > 36


def test_a_state_of_another_log_is_refused(make_log):
    state = sampler_of(make_log([30])).state_dict()
    with pytest.raises(LogSpecError, match="Open the log of this state"):
        sampler_of(make_log([10], name="short")).load_state_dict(state)
    state["logs"] *= 2
    with pytest.raises(LogSpecError, match="state: got that of 2 logs, expected that of 1"):
        sampler_of(make_log([40], name="long")).load_state_dict(state)


def test_a_growing_log_is_followed_on_refresh(path):
    with LogWriter(path, make_spec()) as writer:
        sampler = sampler_of(path, batch=400)
        with pytest.raises(LogEmptyError, match="0 rows"):
            sampler.sample()
        for round_ in range(1, 12):
            append_episode(writer, 13)
            before = sampler.state_dict()["logs"][0]["length"]
            assert before == (round_ - 1) * 13
            sampler.refresh()
            batch = sampler.sample()
            check_windows(batch)
            assert max(first_rows(batch)) >= (round_ - 1) * 13


@pytest.mark.parametrize("cache_rows", [5, 30, 1000])
def test_a_log_that_drops_its_oldest_rows_is_followed(path, cache_rows):
    row_bytes = sum(make_spec().fields[name].row_bytes for name in FIELDS)
    with LogWriter(path, make_spec(), capacity_steps=40, durable_s=0.01) as writer:
        append_episode(writer, 10)
        sampler = sampler_of(path, cache_bytes=cache_rows * row_bytes)
        for round_ in range(40):
            append_episode(writer, 10)
            if round_ % 3 == 0:
                sampler.refresh()
            check_windows(sampler.sample())
    sampler.refresh()
    assert min(first_rows(sampler.sample(batch=200))) == 410 - 40


def test_logs_are_mixed_by_weight(make_log):
    long, short, tiny = make_log([90], "long"), make_log([6], "short"), make_log([2], "tiny")
    readers = [(LogReader(long), 3.0), (LogReader(short), 1.0), (LogReader(tiny), 5.0)]
    sampler = Sampler(
        readers, batch=300, length=4, seed=0, fields=FIELDS, cache_bytes=1 << 20, join=False
    )
    which, rows = sampler.draw(10_000, 4)
    assert np.isclose((which == 0).mean(), 0.75, atol=0.02)  # tiny has no window of 4
    assert (which < 2).all()
    assert rows[which == 1, 0].max() == 2
    check_windows(sampler.sample())


@settings(max_examples=15, **SLOW)
@given(
    logs=st.lists(st.lists(st.integers(1, 12), min_size=1, max_size=3), min_size=2, max_size=3),
    ends=st.integers(0, 3),
    per_episode=st.booleans(),
)
def test_pooled_logs_are_drawn_from_as_one(tmp_path_factory, logs, ends, per_episode):
    """Every window of the pooled logs has the odds that it has in one log of their episodes."""
    options = {"batch": 8, "length": 3, "seed": 0, "fields": FIELDS, "join": False}
    options |= {"ends": ends, "per_episode": per_episode}
    logs = [[*lengths, 5] for lengths in logs]  # each holds a window
    readers = [(LogReader(write(tmp_path_factory, lengths)), 1.0) for lengths in logs]
    other = (LogReader(write(tmp_path_factory, [30])), float(len(logs)))
    pooled = Sampler([*readers, other], pooled=len(logs), **options)
    one = Sampler(
        LogReader(write(tmp_path_factory, [rows for log in logs for rows in log])), **options
    )
    count, begin = 40_000, np.cumsum([0, *map(sum, logs)])
    which, rows = pooled.draw(count, 3)
    own = which < len(logs)
    assert np.isclose(own.mean(), 0.5, atol=0.02)  # the weights of the pooled logs are added
    starts = begin[which[own]] + rows[own, 0]
    got = np.bincount(starts, minlength=begin[-1]) / own.sum()
    expected = np.bincount(starts_of(one, count, 3), minlength=begin[-1]) / count
    assert np.abs(got - expected).max() < 7 * np.sqrt(expected.max() / count) + 1e-9


def test_a_pooled_log_grows_in_its_odds(make_log):
    readers = [(LogReader(make_log([10 * n] * 2, f"log{n}")), 1.0) for n in (1, 4)]
    sampler = Sampler(
        readers, batch=1, length=4, seed=0, fields=FIELDS, pooled=2, recency=1e6, join=True
    )
    which, _ = sampler.draw(10_000, 4)
    assert np.isclose((which == 1).mean(), 77 / (17 + 77), atol=0.02)


def test_as_many_logs_as_are_pooled_must_be_there(make_log):
    with pytest.raises(LogSpecError, match=r"pooled: got 2, expected 1 to 1"):
        sampler_of(make_log([9]), pooled=2)


def test_logs_of_other_shapes_do_not_mix(make_log, tmp_path):
    with LogWriter(tmp_path / "other", make_spec(cameras={"front": (8, 8, 3)})):
        pass
    logs = [(LogReader(make_log([5])), 1.0), (LogReader(tmp_path / "other"), 1.0)]
    options = {"batch": 2, "length": 2, "seed": 0}
    with pytest.raises(LogSpecError, match=r"'image/front': got uint8 .*, expected uint8"):
        Sampler(logs, fields=["image/front"], **options)
    with pytest.raises(LogRowError, match=r"field: got 'image/wrist', expected one of .*other"):
        Sampler(logs, fields=["image/wrist"], **options)
    with pytest.raises(LogSpecError, match="weight > 0"):
        Sampler([(logs[0][0], 0.0)], **options)
    assert Sampler(logs, fields=["reward"], **options).sample()["reward"].shape == (2, 2)


def test_fields_can_be_renamed_and_default_to_all(make_log):
    path = make_log([9])
    fields = {"image": "image/front", "reward": "reward", "same": "image/front"}
    batch = sampler_of(path, fields=fields).sample(3, 5)
    assert {k: v.shape for k, v in batch.items()} == {
        "image": (3, 5, 4, 6, 3), "reward": (3, 5), "same": (3, 5, 4, 6, 3)
    }  # fmt: skip
    assert np.array_equal(batch["image"], batch["same"])
    assert set(sampler_of(path, fields=None).sample()) == set(make_spec().fields)


def test_a_referenced_batch_is_never_overwritten_and_a_released_one_is_reused(make_log):
    sampler = sampler_of(make_log([60]), fields=["image/front"], batch=4)
    view = sampler.sample()["image/front"][1:]
    before, address = view.copy(), view.base.ctypes.data
    for _ in range(5):
        assert sampler.sample()["image/front"].ctypes.data != address
    assert np.array_equal(view, before)
    del view
    gc.collect()
    batches = [sampler.sample()["image/front"] for _ in range(2)]
    assert address in [array.ctypes.data for array in batches]


@pytest.mark.parametrize("option", ["batch", "length", "cache_bytes"])
def test_sizes_below_one_are_refused(make_log, option):
    with pytest.raises(LogSpecError, match="expected at least 1, 1, 1, 0"):
        sampler_of(make_log([3]), **{option: 0})


@pytest.mark.parametrize("shape", [(3, 7), (50, 50, 64, 64, 3), (1 << 21, 3)])
@pytest.mark.parametrize("dtype", ["u1", "f4", "?"])
def test_batches_are_aligned_for_huge_pages(shape, dtype):
    """A large array begins with a page of 2 MB, is complete, and is not shared."""
    one, two = (roomy(shape, np.dtype(dtype)) for _ in range(2))
    assert one.shape == shape and one.dtype == dtype and one.flags.writeable
    if one.nbytes >= 4 << 20 and hasattr(mmap, "MADV_HUGEPAGE"):
        assert one.ctypes.data % (2 << 20) == 0
    one[...], two[...] = 1, 0
    assert one.all() and not two.any()
