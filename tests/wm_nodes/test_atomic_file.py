"""A file is complete or absent, whatever happens during writing."""

from __future__ import annotations

import json

import pytest

from wm_nodes.atomic_file import replacing, write_json


def test_the_file_appears_when_the_block_ends_and_no_other_stays(tmp_path):
    path = tmp_path / "new" / "table.csv"
    with replacing(path) as part:
        part.write_text("new")
        assert not path.exists()
    assert path.read_text() == "new"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
def test_an_error_keeps_the_old_file(tmp_path, error):
    path = tmp_path / "table.csv"
    path.write_text("old")
    with pytest.raises(type(error)), replacing(path) as part:
        part.write_text("ne")
        raise error
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_partial_file_of_a_killed_writer_is_overwritten(tmp_path):
    path = tmp_path / "counts.json"
    with pytest.raises(ZeroDivisionError), replacing(path) as part:
        leftover = part
        raise ZeroDivisionError
    leftover.write_text('{"half":')
    write_json(path, {"episodes": 3})
    assert json.loads(path.read_text()) == {"episodes": 3}
    assert list(tmp_path.iterdir()) == [path]


def test_a_content_that_is_not_json_keeps_the_old_file(tmp_path):
    write_json(tmp_path / "a.json", [1])
    with pytest.raises(TypeError, match="not JSON serializable"):
        write_json(tmp_path / "a.json", [1, object()])
    assert json.loads((tmp_path / "a.json").read_text()) == [1]
