"""Words that are kept out of code and pages: none occurs, and one would be reported."""

from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "check_words.py"
MATCHES = runpy.run_path(str(SCRIPT))["matches"]


def test_no_file_contains_a_refused_word() -> None:
    if not (SCRIPT.parents[1] / ".git").exists():
        pytest.skip("not a git checkout")
    completed = subprocess.run([sys.executable, str(SCRIPT)], capture_output=True, text=True)
    assert completed.returncode == 0, completed.stdout


@pytest.mark.parametrize(
    ("text", "matches"),
    [
        ("wait for somebody who plans", [(1, "somebody")]),
        ("fine\nWhoever looks: nobody.", [(2, "whoever"), (2, "nobody")]),
        ("give_to(copy, NOBODY)", []),
        ("what\ncame", []),
    ],
)
def test_each_word_is_reported_with_its_line(text: str, matches: list[tuple[int, str]]) -> None:
    assert list(MATCHES(text)) == matches
