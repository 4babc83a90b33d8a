"""Words that are kept out of code and pages: none is there, and one would be found."""

from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "check_words.py"
MATCHES = runpy.run_path(str(SCRIPT))["matches"]


def test_no_file_has_one() -> None:
    if not (SCRIPT.parents[1] / ".git").exists():
        pytest.skip("not a git checkout")
    done = subprocess.run([sys.executable, str(SCRIPT)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("wait for somebody who plans", [(1, "somebody")]),
        ("fine\nWhoever looks: nobody.", [(2, "whoever"), (2, "nobody")]),
        ("give_to(copy, NOBODY)", []),
        ("what\ncame", []),
    ],
)
def test_each_is_found_with_its_line(text: str, words: list[tuple[int, str]]) -> None:
    assert list(MATCHES(text)) == words
