"""Test processes that run at the same time have ROS domains of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests import domains

ROOT = Path(__file__).parents[2]
CODE = "from tests import domains; print(domains.OWN, domains.PROCESSES)"


def domains_of_another_process() -> set[int]:
    command = [sys.executable, "-c", CODE]
    return set(map(int, subprocess.check_output(command, cwd=ROOT, text=True).split()))


def test_no_domain_is_claimed_twice() -> None:
    ours = {domains.OWN, domains.PROCESSES, domains.claim()}
    assert len(ours) == 3 and domains.EMPTY not in ours and 0 not in ours
    assert int(os.environ["ROS_DOMAIN_ID"]) == domains.OWN
    theirs = domains_of_another_process()
    assert len(theirs) == 2 and not theirs & (ours | {0, domains.EMPTY})


def test_a_domain_is_free_again_when_its_process_has_ended(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(domains, "FOLDER", tmp_path)
    monkeypatch.setattr(domains, "EMPTY", 3)
    monkeypatch.setattr(domains, "_held", [])
    assert {domains.claim(), domains.claim()} == {1, 2}
    domains._held.pop(0).close()
    assert domains.claim() in (1, 2)
