"""Methods compared over seeds and tasks: published definitions, and runs that do not fit."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import stats

from wm_nodes.evaluation.comparison import (
    ComparisonError,
    Curve,
    area_score,
    bootstrap,
    common_end,
    compare,
    final_score,
    interquartile_mean,
    mean_curve,
    methods_of,
    probability_of_improvement,
    read_run,
    write_comparison,
)

STEPS = (0, 10, 20, 30)


def write_run(
    folder: Path, name: str, values: tuple[float, ...], *, steps: tuple[int, ...] = STEPS, **own
) -> Path:
    run = folder / name
    (run / "metrics").mkdir(parents=True)
    arguments = {"task": "reach", "model": "a", "seed": 0, "run": name, "demos": 0, **own}
    (run / "run.json").write_text(json.dumps({"graph": "sim", "arguments": arguments}))
    with (run / "metrics" / "evaluations.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["time", "steps", "success", "return"])
        table.writerows([0, s, v, 100 * v] for s, v in zip(steps, values, strict=True))
    return run


def curve(values: tuple[float, ...], steps: tuple[int, ...] = STEPS, seed: int = 0) -> Curve:
    return Curve(f"run{seed}", "reach", seed, {}, np.array(steps, float), np.array(values, float))


def test_the_interquartile_mean_is_a_mean_without_a_quarter_at_either_end() -> None:
    rng = np.random.default_rng(0)
    for count in (1, 2, 3, 4, 7, 8, 50):
        scores = rng.normal(size=count)
        assert_allclose(interquartile_mean(scores), stats.trim_mean(scores, 0.25))


def test_the_probability_of_improvement_is_the_mann_whitney_statistic() -> None:
    rng = np.random.default_rng(0)
    mine = {"a": rng.integers(0, 5, 6).astype(float), "b": rng.integers(0, 5, 4).astype(float)}
    theirs = {"a": rng.integers(0, 5, 3).astype(float), "b": rng.integers(0, 5, 5).astype(float)}
    each = [
        stats.mannwhitneyu(mine[task], theirs[task]).statistic
        / (len(mine[task]) * len(theirs[task]))
        for task in mine
    ]
    assert_allclose(probability_of_improvement(mine, theirs), np.mean(each))
    assert probability_of_improvement(mine, mine) == 0.5


def test_an_interval_of_many_seeds_is_that_of_their_mean() -> None:
    """Without extremes to cut: the normal interval of a mean, and none where seeds agree."""
    scores = np.random.default_rng(0).normal(size=400)
    mean = bootstrap(lambda groups: float(groups[0]["a"].mean()), [{"a": scores}])
    half = 1.96 * scores.std() / 20
    assert_allclose([mean.low, mean.high], [mean.value - half, mean.value + half], atol=0.02)
    same = bootstrap(lambda groups: float(groups[0]["a"].mean()), [{"a": np.ones(5)}])
    assert (same.low, same.value, same.high) == (1.0, 1.0, 1.0)


def test_seeds_are_drawn_within_their_task() -> None:
    """Tasks of very different scores: their mean does not vary when seeds agree in each."""
    groups = [{"easy": np.full(3, 0.9), "hard": np.full(3, 0.1)}]
    estimate = bootstrap(
        lambda drawn: float(np.mean([s.mean() for s in drawn[0].values()])), groups
    )
    assert_allclose([estimate.low, estimate.high], [0.5, 0.5])


def test_scores_of_a_curve() -> None:
    rising = curve((0.0, 0.2, 0.4, 0.6))
    assert_allclose(final_score(rising, 30, 2), 0.5)
    assert_allclose(final_score(rising, 15, 2), 0.25)  # 0.2 at step 10 and 0.3 at the end
    assert_allclose(area_score(rising, 30), 0.3)
    assert_allclose(area_score(rising, 15), 0.15)
    uneven = curve((0.0, 1.0, 1.0, 1.0), (0, 10, 20, 110))
    assert_allclose(area_score(uneven, 110), 1 - 0.5 * 10 / 110)
    assert_allclose(area_score(curve((0.7,), (5,)), 5), 0.7)


def test_runs_are_compared_up_to_the_step_that_all_of_a_task_reach() -> None:
    short, long = curve((0.0, 1.0), (0, 10)), curve((0.0, 0.0, 0.9), (0, 10, 20), seed=1)
    assert common_end([short, long]) == {"reach": 10.0}
    with pytest.raises(ComparisonError, match="first evaluated at step 50"):
        common_end([short, curve((1.0,), (50,))])


def test_methods_are_named_by_what_differs(tmp_path: Path) -> None:
    runs = [
        write_run(tmp_path, "a0", (0.1, 0.2, 0.3, 0.4)),
        write_run(tmp_path, "a1", (0.1, 0.2, 0.3, 0.6), seed=1),
        write_run(tmp_path, "b0", (0.1, 0.2, 0.3, 0.5), model="b", demos=20),
    ]
    methods = methods_of([read_run(run, "success") for run in runs])
    assert {name: len(each) for name, each in methods.items()} == {"demos=0 a": 2, "demos=20 b": 1}
    alone = methods_of([read_run(run, "success") for run in runs[:2]])
    assert list(alone) == ["a"]
    with pytest.raises(ComparisonError, match="equal settings, task and seed 0"):
        methods_of([read_run(run, "success") for run in (runs[0], runs[0])])


def test_the_better_method_comes_first_with_the_metric_that_was_asked_for(tmp_path: Path) -> None:
    for seed in range(3):
        worse = (0.0, 0.1, 0.1, 0.1 + 0.01 * seed)
        write_run(tmp_path, f"a{seed}", worse, seed=seed)
        write_run(tmp_path, f"b{seed}", (0.0, 0.5, 0.9, 0.9), seed=seed, model="b")
    methods = methods_of([read_run(run, "return") for run in sorted(tmp_path.iterdir())])
    first, second = compare(methods, last=1)
    assert (first.name, first.runs, first.tasks) == ("b", 3, 1)
    assert_allclose([first.final.value, second.final.value], [90.0, 11.0])
    assert first.better["a"].value == 1.0 and second.better["b"].value == 0.0
    assert second.final.low <= 11.0 <= second.final.high < first.final.low
    out = tmp_path / "out"
    write_comparison(out, methods, [first, second], "return", 1)
    assert (out / "comparison.png").read_bytes().startswith(b"\x89PNG")
    table = (out / "comparison.md").read_text()
    assert "| b | 3 | 1 | 90 [90, 90] |" in table
    with (out / "comparison.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 6 * len(STEPS) and rows[-1]["return"] == "90"


def test_methods_need_the_same_tasks(tmp_path: Path) -> None:
    runs = [
        write_run(tmp_path, "a", (0.1, 0.2, 0.3, 0.4)),
        write_run(tmp_path, "b", (0.1, 0.2, 0.3, 0.4), model="b", task="push"),
    ]
    with pytest.raises(ComparisonError, match="no run of a on sim push"):
        compare(methods_of([read_run(run, "success") for run in runs]))


def test_what_is_no_run_or_has_no_evaluations_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ComparisonError, match=r"run\.json cannot be read"):
        read_run(tmp_path, "success")
    run = write_run(tmp_path, "a", (), steps=())
    with pytest.raises(ComparisonError, match="no evaluations"):
        read_run(run, "success")


@pytest.mark.parametrize("line", ["0,40,", "0,40,0.5,1", "0,4", "0,40,0.5,nan\n", "0,inf,1,1\n"])
def test_an_incomplete_last_line_and_what_is_not_finite_are_skipped(
    tmp_path: Path, line: str
) -> None:
    run = write_run(tmp_path, "a", (0.1, 0.2, 0.3, 0.4))
    with (run / "metrics" / "evaluations.csv").open("a") as file:
        file.write(line)
    assert read_run(run, "return").steps.tolist() == list(STEPS)


def test_a_task_without_success_is_compared_by_return(tmp_path: Path) -> None:
    """dm_control reports no success: its column is empty."""
    run = write_run(tmp_path, "a", (0.1, 0.2, 0.3, 0.4))
    table = run / "metrics" / "evaluations.csv"
    table.write_text("time,steps,success,return\n0,10,,15.2\n0,20,,16.2\n")
    with pytest.raises(ComparisonError, match=r"have no success.*--metric return"):
        read_run(run, "success")
    assert read_run(run, "return").values.tolist() == [15.2, 16.2]


def test_the_mean_curve_covers_what_all_runs_have() -> None:
    steps, mean = mean_curve([curve((0.0, 1.0), (0, 20)), curve((1.0, 1.0), (10, 40), seed=1)])
    assert steps.tolist() == [10, 20]
    assert_allclose(mean, [0.75, 1.0])
