"""Names of topics, services and nodes in a robot's YAML are relative to the driver's namespace."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator
from typing import Any, get_args, get_type_hints

import pytest
import yaml

pytest.importorskip("mujoco", reason="needs the [sim] extra")

from pydantic import TypeAdapter

from tests.wm_nodes.robots.arm.arms import NAMES
from wm_nodes.robots.arm.config.arm_config import find_config, read_config
from wm_nodes.robots.arm.config.field_types import TOPIC, Matches
from wm_nodes.robots.arm.config.sections import CAMERA_TOPICS, ArmSections, CameraSource
from wm_nodes.robots.robot import SpecError

LEFT = "/left/arm"


def write_robot(folder, name="arm_sim", **changes) -> str:
    """Write a shipped robot with other top-level keys; return its path."""
    shipped = find_config(name)
    content = copy.deepcopy(yaml.safe_load(shipped.read_text()))
    content["model"] = str(shipped.parent / content["model"])
    path = folder / "robot.yaml"
    path.write_text(yaml.safe_dump({**content, **changes}, sort_keys=False))
    return str(path)


def name_fields(kind: Any) -> Iterator[tuple[str, Any]]:
    """Yield every field below a section that holds a ROS name: where, and its type."""
    for field, hint in get_type_hints(kind, include_extras=True).items():
        metadata = getattr(hint, "__metadata__", ())
        checks = [getattr(item, "func", None) for item in metadata]
        if any(isinstance(check, Matches) and check.pattern is TOPIC for check in checks):
            yield f"{kind.__name__}.{field}", hint
        for part in (hint, *get_args(hint), *(p for a in get_args(hint) for p in get_args(a))):
            if isinstance(part, type) and dataclasses.is_dataclass(part):
                yield from name_fields(part)


FIELDS = dict(name_fields(ArmSections))


def test_the_fields_with_ros_names_are_complete():
    expected = {"ArmSections.joint_states", "Output.topic", "CameraSource.topic"}
    expected |= {"GripperSection.topic", "Episodes.reset_service", "Episodes.score_topic"}
    assert expected | {"ArmSections.driver_node"} <= set(FIELDS)


@pytest.mark.parametrize("field", FIELDS)
def test_every_name_is_below_the_drivers_namespace_unless_it_is_absolute(field):
    read = TypeAdapter(FIELDS[field]).validate_python
    assert read("a/b", context={"driver_ns": LEFT}) == f"{LEFT}/a/b"
    assert read("/a/b", context={"driver_ns": LEFT}) == "/a/b"
    assert read("a/b", context={"driver_ns": "/"}) == read("a/b") == "/a/b"


@pytest.mark.parametrize("name", NAMES)
def test_topics_of_shipped_arms_move_with_the_namespace(name):
    base = "/arm_sim" if name == "arm_sim" else ""
    default, moved = (read_config(find_config(name), ns) for ns in ("", LEFT))
    assert default.joint_states == f"{base}/joint_states"
    assert moved.joint_states == f"{LEFT}/joint_states"
    assert moved.driver_ns == LEFT
    assert default.driver_ns == (base or "/")
    pairs = [(default.command.topic, moved.command.topic)]
    pairs += [(c.topic, moved.cameras[n].topic) for n, c in default.cameras.items()]
    pairs += [(g.topic, moved.gripper.topic) for g in [default.gripper] if g]
    for default_topic, moved_topic in pairs:
        assert moved_topic == LEFT + default_topic.removeprefix(base)


def test_an_argument_overrides_the_namespace_of_the_file(tmp_path):
    path = write_robot(
        tmp_path, driver_ns="/plant/a", driver_node="broadcaster", joint_states="/shared"
    )
    by_file, by_argument = read_config(path), read_config(path, "left")
    assert (by_file.driver_ns, by_argument.driver_ns) == ("/plant/a", "/left")
    assert (by_file.driver_node, by_argument.driver_node) == (
        "/plant/a/broadcaster",
        "/left/broadcaster",
    )
    assert by_file.joint_states == by_argument.joint_states == "/shared"
    assert by_argument.episodes.reset_service == "/left/reset"
    assert read_config(write_robot(tmp_path, driver_ns="")).joint_states == "/joint_states"


@pytest.mark.parametrize("preset", CAMERA_TOPICS)
def test_presets_of_cameras_move_with_the_driver(tmp_path, preset):
    path = write_robot(tmp_path, cameras={"front": {"preset": preset}})
    assert read_config(path, LEFT).cameras["front"].topic == f"{LEFT}/{CAMERA_TOPICS[preset]}"
    assert CameraSource(preset=preset).topic == f"/{CAMERA_TOPICS[preset]}"


def test_illegal_namespaces_are_refused_in_one_line(tmp_path):
    for wrong in ("left arm", "/left/", 3, "~/x"):
        with pytest.raises(SpecError, match=r"line \d+: driver_ns: got .+, expected .+\. .+\.$"):
            read_config(write_robot(tmp_path, driver_ns=wrong))
    with pytest.raises(SpecError, match=r"^driver_ns: got 'left arm', expected [^\n]+\.$"):
        read_config(write_robot(tmp_path), "left arm")
