"""Report words that are kept out of code and pages: `python scripts/check_words.py` (`make lint`).

Short sentences with the field's own terms are understood by readers of every language: a
subscriber, a planner, the operator, a rollout.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
INSTEAD = {
    "somebody": "a subscriber, a planner, the operator",
    "nobody": "no subscriber, no planner, the operator has not",
    "whoever": "a subscriber, a planner, the operator",
    "whomever": "a subscriber, a planner, the operator",
    "thereby": "so, which",
    "wherein": "in which",
    "whereby": "by which",
    "hereby": "so",
    "thereof": "of it",
    "therein": "in it",
    "whilst": "while",
    "amongst": "among",
    "what came": "the outcome, the truth",
    "brought by": "of, from",
}
WORD = re.compile(rf"\b(?:{'|'.join(INSTEAD)})\b")
OWN = ("check_words.py", "test_words.py")


def matches(text: str) -> Iterator[tuple[int, str]]:
    """Yield line number and word of each match in a text."""
    for number, line in enumerate(text.splitlines(), 1):
        for match in WORD.finditer(line.lower()):
            if line[match.start() : match.end()] != "NOBODY":  # the unprivileged user of Unix
                yield number, match[0]


def main() -> int:
    names = subprocess.check_output(["git", "ls-files", "*.py", "*.md"], cwd=ROOT, text=True)
    count = 0
    for name in names.splitlines():
        path = ROOT / name
        if path.name in OWN or path.is_symlink() or not path.is_file():
            continue
        for number, word in matches(path.read_text()):
            print(f"{name}:{number}: {word!r}: write {INSTEAD[word]}")
            count += 1
    return 1 if count else 0


if __name__ == "__main__":
    sys.exit(main())
