"""Namespaces: legal ones are ROS's, relative ones are below a base, each has its own record."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wm_nodes.cli.arguments import require_namespace
from wm_nodes.control.safety_record import default_path
from wm_nodes.errors import UserError
from wm_nodes.namespaces import LONGEST, absolute, beside, legal, refusal, within

PART = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,7}", fullmatch=True)
PARTS = st.lists(PART, min_size=1, max_size=4)
NAMESPACES = PARTS.map(lambda parts: "/" + "/".join(parts))
TEXTS = st.text("ab_/0-~ .{}\n\u00e9", max_size=12)


@given(st.one_of(TEXTS, NAMESPACES, NAMESPACES.map(lambda text: text[1:])))
def test_legal_namespaces_are_those_of_ros(text):
    rclpy = pytest.importorskip("rclpy")
    from rclpy.validate_namespace import validate_namespace

    try:
        accepted = bool(text) and validate_namespace(absolute(text))
    except rclpy.exceptions.InvalidNamespaceException:
        accepted = False
    assert legal(text) == accepted


@given(NAMESPACES, PARTS)
def test_relative_names_are_below_the_base_and_absolute_ones_stay(base, parts):
    name = "/".join(parts)
    assert absolute(name, base) == f"{base}/{name}"
    assert absolute(name) == absolute(name, "/") == f"/{name}"
    assert absolute(f"/{name}", base) == f"/{name}"
    assert within(base, absolute(parts[0], base)) == parts[0]
    assert within(base, f"{base}/{parts[0]}/deeper") == ""
    assert beside(f"{base}/robot", "arm_sim") == f"{base}/arm_sim"


def test_the_root_and_names_private_to_a_node():
    assert absolute("~/state", "/left") == "~/state"
    assert absolute("", "/left") == ""
    assert beside("/robot", "arm_sim") == beside("/", "arm_sim") == "/arm_sim"
    assert within("/", "/monitor") == "monitor"
    assert within("/robot", "/robot/left/robot") == ""


@given(NAMESPACES, NAMESPACES)
def test_two_namespaces_never_share_a_record(first, second):
    paths = {default_path("fr3", "0", ns) for ns in (first, second, "/")}
    assert len(paths) == len({first, second, "/"})


@pytest.mark.parametrize("text", ["left arm", "/left/", "//left", "1st", "/a-b", "", "x" * 300])
def test_an_illegal_namespace_is_refused_in_one_line(text):
    with pytest.raises(UserError) as error:
        require_namespace("ns", text)
    assert re.fullmatch(
        r"--ns: got '.*', expected letters, .+ such as /left/robot\.", str(error.value)
    )
    assert len(str(error.value)) < 3 * LONGEST
    assert str(error.value) == refusal("--ns", text)


def test_a_relative_namespace_on_the_command_line_is_below_the_root():
    assert require_namespace("ns", "left/robot") == "/left/robot"
