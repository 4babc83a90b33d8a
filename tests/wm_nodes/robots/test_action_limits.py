"""Limits files: the shipped one is valid, a malformed one is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from wm_nodes.robots.action_limits import read_limits
from wm_nodes.robots.robot import SpecError

CONFIG = Path(__file__).parents[3] / "config" / "robots"
GOOD = "action:\n  names: [x]\n  units: [m]\n  low: [-1]\n  high: [1]\n"


def test_the_shipped_limits_are_the_adapter_s():
    pytest.importorskip("wm_nodes.robots.sims.metaworld", reason="needs the [sim] extra")
    from wm_nodes.robots.sims.metaworld import ACTION

    assert read_limits(CONFIG / "metaworld.yaml") == ACTION


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "expected `action:`"),
        ("action: [1, 2]", "expected `action:`"),
        ("a: {b", "cannot be read"),
        (GOOD.replace("  low: [-1]\n", ""), "got names, units, high, expected"),
        (GOOD + "  speed: [3]\n", "high, speed, expected `action:`"),
        (GOOD.replace("[m]", "[m, m]"), "one length"),
        (GOOD.replace("[-1]", "[small]"), "numbers"),
        (GOOD.replace("[-1]", "[2]"), "below"),
        (GOOD.replace("[-1]", "[.nan]"), "finite"),
        (GOOD.replace("[1]", "[.inf]"), "finite"),
    ],
)
def test_malformed_limits_are_refused(tmp_path, content, message):
    path = tmp_path / "limits.yaml"
    path.write_text(content)
    with pytest.raises(SpecError, match=message):
        read_limits(path)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(SpecError, match="cannot be read"):
        read_limits(tmp_path / "none.yaml")
