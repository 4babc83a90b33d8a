"""LOG and LOG:WEIGHT: folders, URLs and paths with colons."""

from __future__ import annotations

import pytest

from wm_nodes.graphs.weighted_log import WeightedLog


@pytest.mark.parametrize(
    ("text", "path", "weight"),
    [
        ("runs/a/log", "runs/a/log", 1.0),
        (" runs/a/log:0.3 ", "runs/a/log", 0.3),
        ("s3://bucket/log", "s3://bucket/log", 1.0),
        ("s3://bucket/log:2", "s3://bucket/log", 2.0),
        ("http://host:9000/bucket/log", "http://host:9000/bucket/log", 1.0),
        ("run:1/log", "run:1/log", 1.0),
        ("run:1/log:4e-1", "run:1/log", 0.4),
    ],
)
def test_a_text_is_a_path_and_a_weight(text, path, weight):
    log = WeightedLog.parse(text)
    assert log == WeightedLog(path, weight)
    assert log.is_url == ("://" in text)
    assert WeightedLog.parse(str(log)) == log


def test_a_folder_may_end_like_a_weight(tmp_path):
    (tmp_path / "log:2").mkdir()
    assert WeightedLog.parse(f"{tmp_path}/log:2") == WeightedLog(f"{tmp_path}/log:2", 1.0)


@pytest.mark.parametrize("text", ["", ":1", "log:", "log:0", "log:-1", "log:nan", "log:inf", "a:b"])
def test_an_invalid_weight_is_refused(text):
    with pytest.raises(ValueError, match="expected LOG or LOG:WEIGHT"):
        WeightedLog.parse(text)
