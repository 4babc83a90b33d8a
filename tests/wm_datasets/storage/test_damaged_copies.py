"""A damaged file is copied once; the name of the copy has the rows that the file held."""

import pytest

from wm_datasets.storage.damaged_copies import FOLDER, keep_aside, kept_aside


@pytest.fixture
def chunk(tmp_path):
    path = tmp_path / "image" / "top" / "c.1"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"broken")
    return path


def names(root):
    return sorted(path.name for path, _, _ in kept_aside(root))


def test_a_copy_is_named_by_its_rows_and_its_path(tmp_path, chunk):
    keep_aside(tmp_path, chunk, 4, 8)
    copy = tmp_path / FOLDER / "4-8.image.top.c.1"
    assert copy.read_bytes() == chunk.read_bytes() == b"broken"
    assert list(kept_aside(tmp_path)) == [(copy, 4, 8)]


def test_equal_contents_are_copied_once_and_different_ones_get_a_number(tmp_path, chunk):
    for content in (b"broken", b"broken", b"otherwise", b"otherwise", b"broken", b"third"):
        chunk.write_bytes(content)
        keep_aside(tmp_path, chunk, 4, 8)
    name = "4-8.image.top.c.1"
    assert names(tmp_path) == [name, f"{name}.1", f"{name}.2"]
    copies = [(tmp_path / FOLDER / n).read_bytes() for n in names(tmp_path)]
    assert copies == [b"broken", b"otherwise", b"third"]


def test_a_missing_or_empty_file_is_not_copied(tmp_path, chunk):
    chunk.write_bytes(b"")
    keep_aside(tmp_path, chunk, 4, 8)
    keep_aside(tmp_path, chunk.with_name("c.2"), 4, 8)
    keep_aside(tmp_path, chunk / "below", 4, 8)
    assert not (tmp_path / FOLDER).exists() and names(tmp_path) == []


def test_other_files_of_the_folder_are_no_copies(tmp_path):
    (tmp_path / FOLDER).mkdir()
    for name in ("4-8.c.1.tmp", "4-8.", "notes", "x-8.c", "4-8"):
        (tmp_path / FOLDER / name).touch()
    assert names(tmp_path) == []
