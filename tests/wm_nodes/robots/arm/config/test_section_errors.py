"""Robots in YAML: every error is refused in one line, with file, line and remedy."""

from __future__ import annotations

import copy
import re

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("mujoco", reason="needs the [sim] extra")

from tests.wm_nodes.robots.arm.arms import NAMES
from wm_nodes.robots.arm.config.arm_config import find_config, read_config
from wm_nodes.robots.arm.config.yaml_file import read_yaml
from wm_nodes.robots.robot import SpecError

SHIPPED = {name: yaml.safe_load(find_config(name).read_text()) for name in NAMES}
ABSENT = object()


def error_of_edit(path, edit, name="arm_sim"):
    """Write a shipped robot after `edit(content)`; return the error of read_config."""
    shipped = find_config(name)
    content = copy.deepcopy(SHIPPED[name])
    content["model"] = str(shipped.parent / content["model"])
    edit(content)
    return error_of(path, yaml.safe_dump(content, sort_keys=False, allow_unicode=True))


def error_of(path, text):
    path.write_text(text)
    with pytest.raises(SpecError) as error:
        read_config(path)
    message = str(error.value)
    assert "\n" not in message
    assert re.match(r"robot \S+, line \d+: .+: got .+, expected .+\. .+\.$", message), message
    return message


def setting(*keys_and_value):
    """Return an edit that sets one value."""

    def edit(content):
        *keys, last, value = keys_and_value
        for key in keys:
            content = content[key]
        if value is ABSENT:
            del content[last]
        else:
            content[last] = value

    return edit


@pytest.mark.parametrize(
    ("edit", "expected"),
    [
        (setting("joints", {}), "A robot without limits does not start"),
        (setting("joints", None), "A robot without limits does not start"),
        (setting("joints", ABSENT), "got no joints.*A robot without limits does not start"),
        (setting("joints", "joint_1", {"low": -1, "high": 1}), "no velocity, acceleration, jerk"),
        (setting("joints", "joint_1", [1, 2]), "joints.joint_1: got .* expected a table"),
        (
            setting("joints", "joint_1", "low", "a"),
            "joints.joint_1.low: got 'a', expected a number",
        ),
        (setting("joints", "joint_1", "velocity", True), "got true, expected a number"),
        (setting("joints", "joint_1", "velocity", 0), "expected above 0 to 30 rad/s"),
        (setting("joints", "joint_1", "jerk", float("inf")), "expected a number"),
        (setting("joints", "joint_1", "low", 2.9), "got 2.9 to 2.8, expected low below high"),
        (setting("joints", "joint_1", "brake", 1), "the unknown key 'brake'"),
        (setting("joints", "joint_1", "continuous", "on"), "expected true or false"),
        (setting("workspace", {"low": [0, 0, 0]}), "no high"),
        (setting("workspace", "high", [0, 1, 1]), "each low below its high"),
        (setting("workspace", "low", [0, 0]), r"3 numbers \(x, y, z in metres\)"),
        (setting("workspace", "low", "here"), "expected a list"),
        (setting("workspace", "hand_speed", 9.0), "hand_speed: got 9, expected above 0 to 2 m/s"),
        (setting("workspace", "hand_speed", 250), "looks like millimetres"),
        (setting("rate_hz", 1000), "1 to 200 Hz"),
        (setting("rate_hz", True), "rate_hz: got true, expected a number"),
        (setting("rate_hz", "50"), "rate_hz: got '50', expected a number"),
        (setting("home", [0, 0]), "home: got 2 positions, expected 7"),
        (setting("home", 3), "home: got 3, expected a list"),
        (setting("home", 0, float("nan")), r"home\[0\]: got '.nan', expected a number"),
        (setting("home", 1, 2.2), "expected -1.1 to 2.1, the limits of joint_2"),
        (setting("command", None), "command: got nothing, expected a table"),
        (setting("command", "interface", "velocty"), "Did you mean 'velocity'"),
        (setting("command", "topic", "two words"), "expected a ROS name"),
        (
            setting("command", "topic", ABSENT),
            "no topic, expected the command topic of a .* position",
        ),
        (setting("command", "timeout_s", -1), "0 to 60 s"),
        (setting("command", "timeout_s", 500), "looks like milliseconds"),
        (
            setting("cameras", "front", {"preset": "realsence2_camera"}),
            "realsense2_camera, usb_cam",
        ),
        (setting("cameras", "front", {}), "no source, expected one of topic, preset, device"),
        (setting("cameras", "front", {"device": 0, "topic": "/a"}), "got topic and device"),
        (setting("cameras", "front", {"device": 0, "depth": True}), "device of a depth camera"),
        (setting("cameras", "front", "info_topic", "/a b"), "a ROS name such as"),
        (setting("cameras", "front", "stamps", "none"), "one of header, arrival"),
        (setting("cameras", "front", "height", 64.5), "a whole number"),
        (setting("cameras", "front", "height", True), "got true, expected a whole number"),
        (setting("cameras", "front", "crop", [0.5, 0, 0.5, 0]), "4 shares"),
        (setting("cameras", "front", "crop", 0.1), "expected a list"),
        (setting("cameras", ["front"]), "cameras: got .*, expected a table"),
        (setting("watch", {"camera_stop": 1}), "Did you mean 'camera_stop_s'"),
        (setting("watch", "camera_stop_s", -1), "0 to 60 s"),
        (setting("watch", "camera_stop_s", 500), r"looks like milliseconds: write seconds \(0.5\)"),
        (setting("watch", "tracking_rad", 11.5), "looks like degrees"),
        (setting("watch", "max_image_age_s", None), "got nothing, expected a number"),
        (setting("jionts", 1), "Did you mean 'joints'"),
        (setting("robot", 5), "robot: got 5, expected text"),
        (setting("model", "models/no.xml"), "which is no file"),
        (setting("model", "~no_such_user/arm.xml"), "which is no file"),
        (setting("hand", "hnad"), "Did you mean 'hand'"),
        (setting("driver_node", 3), "expected text"),
        (setting("action", "kind", "hand"), "one of joint_velocity, hand_velocity"),
        (setting("action", "speed", 7), "above 0 to 1"),
        (setting("action", "gripper_rests", "lift"), "expected a list"),
        (
            setting("action", "gripper_tasks", ["lift"]),
            "the unknown key 'gripper_tasks'.*write `gripper_rests`",
        ),
        (setting("gripper", ABSENT), "there is no gripper"),
        (
            setting("gripper", "interface", "velocity"),
            "one of position, trajectory, gripper_command",
        ),
        (setting("gripper", "action", "speed"), "one of velocity, position"),
        (
            setting("gripper", "action_type", "Grip"),
            "one of GripperCommand, ParallelGripperCommand",
        ),
        (setting("gripper", "deadband", 2), r"0 to 1 \(a share\)"),
        (setting("gripper", "goal_hz", 0), "1 to 200 Hz"),
        (setting("gripper", "max_effort", -1), "0 to 1e\\+04 N"),
        (setting("gripper", "timeout_s", 500), "looks like milliseconds"),
        (setting("gripper", "timeout_s", 0.01), r"at least watch.driver_s, 0.\d+ s"),
        (
            setting("gripper", "deadband", 0.1),
            "deadband: got interface position, expected interface",
        ),
        (setting("cameras", "front", "info_topic", "front/image_raw"), "the topic of the images"),
        (setting("driver", {"speed_scaling_percent": False}), "got no speed_scaling_topic"),
        (
            setting(
                "gripper", {**SHIPPED["arm_sim"]["gripper"], "topic": "", "interface": "trajectory"}
            ),
            "interface trajectory and no topic",
        ),
        (setting("force_torque", {}), "force_torque: got no topic"),
        (setting("force_torque", "/wrench"), "expected a table"),
        (setting("force_torque", {"topic": "/w", "timeout_s": 0}), "above 0 to 60 s"),
        (setting("force_torque", {"topic": "/w", "max_force_n": -1}), "0 to 1e\\+04 N"),
        (setting("force_torque", {"topic": "/w", "max_torque_nm": True}), "expected a number"),
        (setting("force_torque", {"topic": "/w", "stamps": "none"}), "one of header, arrival"),
        (setting("force_torque", {"topic": "/w", "max_force": 1}), "Did you mean 'max_force_n'"),
        (setting("gripper", "joint", "joint_1"), "which is in `joints` too"),
        (setting("gripper", "joint", ABSENT), "gripper: got no joint"),
        (setting("gripper", "continuous", True), "the unknown key 'continuous'"),
        (setting("collision", "obstacles", "table", "low", 1), "expected a list"),
        (setting("collision", "obstacles", "table", "high", [1, 1, -1]), "z from -0.05 to -1 m"),
        (setting("collision", "obstacles", "a b", {}), "a name such as"),
        (setting("collision", "check", "no"), "got 'no', expected true or false"),
        (setting("collision", "self", True), "the unknown key 'self'"),
        (setting("driver", "recovery", []), "the unknown key 'recovery'.+Did you mean 'recover'"),
        (setting("driver", "recover", {}), "expected a list"),
        (
            setting("driver", "recover", 0, "kind", "x"),
            "the unknown key 'kind'.+one of service, type",
        ),
        (setting("driver", "recover", 0, "service", ABSENT), "got no service"),
        (
            setting("driver", "recover", 0, "type", "std_srvs/Trigger"),
            "such as std_srvs/srv/Trigger",
        ),
        (setting("driver", "activate", "request", [1]), "expected a table"),
        (setting("driver", "activate", "timeout_s", 0), "expected 0.1 to 30 s"),
        (setting("driver", "speed_scaling_topic", "/a b"), "a ROS name"),
        (setting("driver", "speed_scaling_percent", 1), "expected true or false"),
        (setting("driver", "speed_scaling_timeout_s", 0.0), "expected 0.05 to 10 s"),
    ],
)
def test_a_wrong_value_is_refused(tmp_path, edit, expected):
    assert re.search(expected, error_of_edit(tmp_path / "robot.yaml", edit))


REQUIRED = ["robot", "model", "hand", "rate_hz", "joint_states", "joints", "workspace", "action",
            "home"]  # fmt: skip


@pytest.mark.parametrize("key", REQUIRED)
def test_a_missing_required_field_is_refused(tmp_path, key):
    message = error_of_edit(tmp_path / "robot.yaml", setting(key, ABSENT))
    assert f"file: got no {key}, expected " in message


def degrees(content):
    for joint in content["joints"].values():
        joint.update({key: float(np.rad2deg(value)) for key, value in joint.items()})
    content["home"][:6] = np.rad2deg(content["home"][:6]).tolist()


def millimetres(content):
    for corner in ("low", "high"):
        content["workspace"][corner] = [1000 * value for value in content["workspace"][corner]]


@pytest.mark.parametrize(
    ("edit", "expected"),
    [
        (degrees, r"joint_1.low: got -160.* It looks like degrees: write radians \(-2.8\)"),
        (setting("joints", "joint_1", "velocity", 86), "looks like degrees"),
        (millimetres, r"It looks like millimetres: write metres \(0.25\)"),
        (setting("workspace", "low", [0.25, 0.1, 0.02]), "end effector at .* inside the workspace"),
        (setting("workspace", "high", [0.55, 0.28, 0.1]), "Widen the workspace, or choose another"),
    ],
)
def test_wrong_units_and_a_box_without_home_are_refused(tmp_path, edit, expected):
    assert re.search(expected, error_of_edit(tmp_path / "robot.yaml", edit))


def without_joint(joint, index):
    def edit(content):
        del content["joints"][joint]
        del content["home"][index]

    return edit


def renamed_joint(old, new):
    def edit(content):
        content["joints"] = {new if k == old else k: v for k, v in content["joints"].items()}

    return edit


@pytest.mark.parametrize(
    ("edit", "expected"),
    [
        (without_joint("joint_4", 3), "joints: got no joint 'joint_4'"),
        (renamed_joint("joint_4", "joint4"), "Did you mean 'joint_4'"),
        (setting("joints", "joint_1", "high", 3.1), "within the model's range -2.9 to 2.9"),
        (setting("joints", "joint_1", "continuous", True), "in the model it has end stops"),
        (setting("gripper", "joint", "finger"), "gripper.joint: got the joint 'finger'"),
        (setting("gripper", "high", 0.8), "within the model's range 0 to 0.035"),
        (setting("gripper", "high", 35), "looks like degrees.* metres \\(0.035\\) if it slides"),
    ],
)
def test_values_that_contradict_the_model_are_refused(tmp_path, edit, expected):
    assert re.search(expected, error_of_edit(tmp_path / "robot.yaml", edit))


MODEL = """<mujoco><compiler angle="radian"/><worldbody>{base}
<body><joint name="one" type="{one}" axis="0 0 1"/><geom size=".1"/><body pos="0 0 1">{two}
<geom size=".1"/><site name="hand" pos=".3 0 .2"/><body><joint name="finger" type="{finger}"/>
<geom size=".1"/></body></body></body></worldbody></mujoco>"""
LIMITS = "{low: -1, high: 1, velocity: 1, acceleration: 2, jerk: 20}"
SMALL = """robot: small
model: model.xml
hand: hand
rate_hz: 50
joint_states: /joint_states
joints:
  one: LIMITS
  two: LIMITS
gripper: {joint: finger, low: 0, high: 0.5, velocity: 1, acceleration: 2, jerk: 20}
workspace: {low: [0, -0.5, 1], high: [1, 0.5, 1.5]}
command: {interface: position, topic: /commands}
action: {kind: hand_velocity, speed: 0.1}
home: [0, 0, 0]
""".replace("LIMITS", LIMITS)
TWO = '<joint name="two" axis="0 0 1"/>'


@pytest.mark.parametrize(
    ("model", "yaml_edit", "expected"),
    [
        ({}, ("", ""), ""),
        ({"two": ""}, ("", ""), "got the joint 'two', expected a joint of the model"),
        ({"two": TWO + '<joint name="three" axis="0 1 0"/>'}, ("", ""), "got no joint 'three'"),
        ({"two": TWO + '<joint axis="0 1 0"/>'}, ("", ""), "got no joint ''"),
        ({"one": "ball"}, ("", ""), "a ball joint in the model"),
        ({"one": "slide"}, ("low: -1, high: 1", "low: -2.8, high: 2.8"), "slides in the model"),
        ({"one": "slide"}, ("jerk: 20}", "jerk: 20, continuous: true}"), "in the model it slides"),
        ({}, ("high: 0.5", "high: 0.05"), "It looks like metres"),
        ({}, ("two: ", "finger: "), "'finger', which is in `joints` too"),
        ({}, ("{joint: finger,", "{joint: two,"), "'two', which is in `joints` too"),
        ({"base": "<body"}, ("", ""), "model: got .*, expected MJCF"),
        (
            {},
            ("hand: hand", "hand: tool"),
            "hand: got 'tool', expected a site or link of the model",
        ),
        ({}, ("home: [0, 0, 0]", "home: [0, 0, 1]"), "the limits of finger"),
    ],
)
def test_another_model_is_compared_with_its_robot(tmp_path, model, yaml_edit, expected):
    parts = {"base": "", "one": "hinge", "two": TWO, "finger": "hinge", **model}
    (tmp_path / "model.xml").write_text(MODEL.format(**parts))
    path = tmp_path / "robot.yaml"
    text = SMALL.replace(*yaml_edit, 1)
    if expected:
        assert re.search(expected, error_of(path, text))
    else:
        path.write_text(text)
        assert read_config(path).limits.joints == ("one", "two", "finger")


def test_a_joint_beside_the_chain_is_refused(tmp_path):
    (tmp_path / "model.xml").write_text(MODEL.format(base="", one="hinge", two=TWO, finger="hinge"))
    text = SMALL.replace("  two:", f"  finger: {LIMITS}\n  two:")
    text = re.sub("gripper:.*\n", "", text)
    message = error_of(tmp_path / "robot.yaml", text)
    assert "joints.finger: got a joint that does not move the end effector" in message


TEXT = find_config("arm_sim").read_text()


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("high: 2.8,", "high: 1:30,", "got '1:30', expected a number"),
        ("rate_hz: 50", "rate_hz: 050", "got '050', expected a number"),
        ("rate_hz: 50", "rate_hz: 0x32", "expected a number"),
        ("rate_hz: 50", "rate_hz: 5_0", "expected a number"),
        ("rate_hz: 50", "rate_hz: on", "got 'on', expected a number"),
        ("rate_hz: 50", "rate_hz: .inf", "expected a number"),
        ("rate_hz: 50", "rate_hz: 1e999", "expected a finite number"),
        ("rate_hz: 50", "rate_hz: 1" + 5000 * "0", "expected a number"),
        ("rate_hz: 50", "rate_hz: 2026-01-01", "expected a number"),
        ("rate_hz: 50", "rate_hz: !!int 50", "got a tag"),
        ("rate_hz: 50", "rate_hz: &rate 50", "got an anchor"),
        ("rate_hz: 50", "rate_hz: *rate", "got an anchor or alias"),
        ("rate_hz: 50", "rate_hz: 50\nrate_hz: 60", "the key twice .first in line 5"),
        ("home:", "workspace: {low: [0, 0, 0], high: [1, 1, 1]}\nhome:", "workspace: got the key"),
        ("rate_hz: 50", "rate_hz: [50", "syntax: got"),
        ("rate_hz: 50", "rate_hz: 50: 60", "syntax: got"),
        ("rate_hz: 50", "rate_hz: 50\n\tx: 1", "syntax: got"),
        ("rate_hz: 50", "? [rate_hz]\n: 50", "a list or table as a key"),
        ("rate_hz: 50", "<<: {rate_hz: 50}", "the unknown key '<<'"),
        ("rate_hz: 50", "rate_hz: " + 3000 * "[", "nested"),
        ("rate_hz: 50", "rate_hz: \x07", "syntax: got"),
        (TEXT, "", "file: got nothing, expected a table"),
        (TEXT, "- 1", "file: got .1., expected a table"),
        (TEXT, "--- {}\n--- {}", "syntax: got"),
    ],
)
def test_ambiguous_yaml_is_refused(tmp_path, old, new, expected):
    assert old in TEXT
    assert re.search(expected, error_of(tmp_path / "robot.yaml", TEXT.replace(old, new, 1)))


def test_an_error_names_the_line(tmp_path):
    line = 1 + TEXT[: TEXT.index("  joint_3")].count("\n")
    text = TEXT.replace("joint_3: {low: 0.2", "joint_3: {low: '0.2'")
    message = error_of(tmp_path / "robot.yaml", text)
    assert message.startswith(f"robot {tmp_path}/robot.yaml, line {line}: joints.joint_3.low: got ")


@pytest.mark.parametrize("content", [None, b"\xff\xfe\x00"])
def test_a_file_that_cannot_be_read_is_refused(tmp_path, content):
    path = tmp_path / "robot.yaml"
    if content:
        path.write_bytes(content)
    with pytest.raises(SpecError, match="cannot be read"):
        read_config(path)
    with pytest.raises(SpecError, match="cannot be read"):
        read_config(tmp_path)


def test_only_decimal_numbers_and_lower_case_bools_are_converted(tmp_path):
    path = tmp_path / "any.yaml"
    path.write_text(
        "[1, -2, 1.5, .5, 5., 1e-3, +1.5E3, true, false, null, ~, '1', yes, True, 1:30, 010, 1_0]"
    )
    assert read_yaml(path).content == [
        1, -2, 1.5, 0.5, 5.0, 1e-3, 1500.0, True, False, None, None, "1", "yes", "True", "1:30",
        "010", "1_0",
    ]  # fmt: skip


def test_homes_near_the_wrap_are_refused(tmp_path):
    message = error_of_edit(tmp_path / "robot.yaml", setting("home", 2, 3.14), "gen3")
    assert "home[2]: got 3.14, home too near the wrap of joint_3" in message


# Fuzz: any value anywhere -----------------------------------------------------------------------

ANYTHING = st.one_of(
    st.none(), st.booleans(), st.integers(), st.just(10**400), st.floats(), st.text(max_size=8),
    st.sampled_from(["on", "1:30", "~", "", ".nan", "joint_1", "hand", "position", "/topic"]),
    st.lists(st.one_of(st.floats(), st.text(max_size=3), st.none()), max_size=4),
    st.dictionaries(st.text(max_size=4), st.integers(), max_size=2),
)  # fmt: skip
RAW = st.sampled_from(
    ["on", "1:30", "0x1f", "017", "1e999", ".nan", "-.inf", "&a 1", "*a", "!!float 1", "!x y", "[",
     "{", "}", "'", '"', '"\\ud800"', "|", ">", "? x", ": ", "- -", "#", "%", "@", "`", "\t",
     "\x00", "\u2028", "1_0", "-", "--- ", "...", "<<", "9" * 5000, "[" * 500, "null", "true"]
)  # fmt: skip


def key_paths(content, prefix=()):
    """Yield the keys that lead to each value."""
    items = content.items() if isinstance(content, dict) else enumerate(content)
    for key, value in items if isinstance(content, (dict, list)) else ():
        yield (*prefix, key)
        if isinstance(value, (dict, list)):
            yield from key_paths(value, (*prefix, key))


def read_or_refuse(path, text):
    path.write_bytes(text.encode(errors="surrogatepass"))
    try:
        read_config(path)
    except SpecError as error:
        assert "\n" not in str(error)
        assert str(error).startswith("robot ")


@settings(max_examples=300, deadline=None, derandomize=True)
@given(data=st.data())
def test_no_value_causes_a_traceback(tmp_path_factory, data):
    name = data.draw(st.sampled_from(NAMES))
    content = copy.deepcopy(SHIPPED[name])
    content["model"] = str(find_config(name).parent / content["model"])
    for _ in range(data.draw(st.integers(1, 2))):
        keys = data.draw(st.sampled_from(sorted(key_paths(content), key=str)))
        setting(*keys, data.draw(ANYTHING))(content)
    path = tmp_path_factory.getbasetemp() / "fuzz.yaml"
    read_or_refuse(path, yaml.safe_dump(content, allow_unicode=True))


@settings(max_examples=300, deadline=None, derandomize=True)
@given(data=st.data())
def test_no_text_causes_a_traceback(tmp_path_factory, data):
    name = data.draw(st.sampled_from(NAMES))
    text = re.sub("^#.*\n", "", find_config(name).read_text(), flags=re.M)
    tokens = list(re.finditer(r"[\w./-]+", text))
    token = data.draw(st.sampled_from(tokens))
    text = text[: token.start()] + data.draw(RAW) + text[token.end() :]
    read_or_refuse(tmp_path_factory.getbasetemp() / "fuzz.yaml", text)


def test_a_path_of_an_unknown_user_is_refused():
    with pytest.raises(SpecError, match="cannot be read"):
        read_config(find_config("~no_such_user/arm.yaml"))
