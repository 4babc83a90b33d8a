"""Faults with real processes, a few of each run; `wm faults` does all of them, 200 times."""

from __future__ import annotations

import os

import pytest

os.environ.setdefault("MUJOCO_GL", "egl")
pytest.importorskip("mujoco", reason="needs the [sim] extra")
pytest.importorskip("rclpy")

from wm_nodes.faults.matrix import FAULTS, STOPS, Outcome, run_matrix


def test_every_fault_of_the_list_has_a_name_of_its_own():
    assert len(set(FAULTS)) == len(FAULTS)
    assert set(FAULTS) >= STOPS


@pytest.mark.timeout(300)
def test_killed_silenced_and_lied_to_it_stops_within_its_limits_and_goes_on():
    faults = ["driver_dead", "kill player", "estop", "rubbish plans"]
    outcomes: list[Outcome] = []
    heard = run_matrix(faults, 7, lambda outcome, heard: outcomes.append(outcome))
    assert heard.violations == {} and heard.commands > 100
    assert all(outcome.fine for outcome in outcomes), outcomes
