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


def written(folder, name="arm_sim", **changes) -> str:
    """Write a shipped robot with other top-level keys; return its path."""
    shipped = find_config(name)
    content = copy.deepcopy(yaml.safe_load(shipped.read_text()))
    content["model"] = str(shipped.parent / content["model"])
    path = folder / "robot.yaml"
    path.write_text(yaml.safe_dump({**content, **changes}, sort_keys=False))
    return str(path)


def names_in(kind: Any) -> Iterator[tuple[str, Any]]:
    """Yield every field below a section that holds a ROS name: where, and its type."""
    for field, hint in get_type_hints(kind, include_extras=True).items():
        about = getattr(hint, "__metadata__", ())
        checks = [getattr(each, "func", None) for each in about]
        if any(isinstance(check, Matches) and check.pattern is TOPIC for check in checks):
            yield f"{kind.__name__}.{field}", hint
        for part in (hint, *get_args(hint), *(p for a in get_args(hint) for p in get_args(a))):
            if isinstance(part, type) and dataclasses.is_dataclass(part):
                yield from names_in(part)


FIELDS = dict(names_in(ArmSections))


def test_the_fields_with_names_are_found():
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
def test_shipped_arms_are_where_their_drivers_put_them_and_move_together(name):
    base = "/arm_sim" if name == "arm_sim" else ""
    here, there = (read_config(find_config(name), ns) for ns in ("", LEFT))
    assert here.joint_states == f"{base}/joint_states"
    assert there.joint_states == f"{LEFT}/joint_states"
    assert there.driver_ns == LEFT
    assert here.driver_ns == (base or "/")
    pairs = [(here.command.topic, there.command.topic)]
    pairs += [(c.topic, there.cameras[n].topic) for n, c in here.cameras.items()]
    pairs += [(g.topic, there.gripper.topic) for g in [here.gripper] if g]
    for ours, theirs in pairs:
        assert theirs == LEFT + ours.removeprefix(base)


def test_the_files_namespace_is_overruled_by_the_given_one(tmp_path):
    path = written(
        tmp_path, driver_ns="/plant/a", driver_node="broadcaster", joint_states="/shared"
    )
    file, given = read_config(path), read_config(path, "left")
    assert (file.driver_ns, given.driver_ns) == ("/plant/a", "/left")
    assert (file.driver_node, given.driver_node) == ("/plant/a/broadcaster", "/left/broadcaster")
    assert file.joint_states == given.joint_states == "/shared"
    assert given.episodes.reset_service == "/left/reset"
    assert read_config(written(tmp_path, driver_ns="")).joint_states == "/joint_states"


@pytest.mark.parametrize("preset", CAMERA_TOPICS)
def test_presets_of_cameras_move_with_the_driver(tmp_path, preset):
    path = written(tmp_path, cameras={"front": {"preset": preset}})
    assert read_config(path, LEFT).cameras["front"].topic == f"{LEFT}/{CAMERA_TOPICS[preset]}"
    assert CameraSource(preset=preset).topic == f"/{CAMERA_TOPICS[preset]}"


def test_illegal_namespaces_are_refused_in_one_line(tmp_path):
    for wrong in ("left arm", "/left/", 3, "~/x"):
        with pytest.raises(SpecError, match=r"line \d+: driver_ns: got .+, expected .+\. .+\.$"):
            read_config(written(tmp_path, driver_ns=wrong))
    with pytest.raises(SpecError, match=r"^driver_ns: got 'left arm', expected [^\n]+\.$"):
        read_config(written(tmp_path), "left arm")
