"""Message <-> record: round trips are exact; an invalid message is refused with its reason."""

from __future__ import annotations

import json
from array import array

import numpy as np
import pytest

pytest.importorskip("rclpy")

from sensor_msgs.msg import Image as ImageMsg
from sensor_msgs.msg import JointState
from std_msgs.msg import String

from wm_datasets.spec import LogSpec, VectorSpec
from wm_nodes.errors import MessageError
from wm_nodes.records import Announcement, Features, Latent, Origin, Plan, Step
from wm_nodes.ros import messages

ORIGIN = Origin("mwm_cpu", "actor", 7)
RNG = np.random.default_rng(0)
STAMP = 12_345_678_901


def example_step(**changes) -> Step:
    values = dict(
        stamp_ns=STAMP,
        names=("x", "y"),
        executed=np.float32([0.5, -1.0]),
        commanded=np.float32([0.5, -1.5]),
        reward=1.25,
        is_last=True,
        success=True,
        explore=False,
        weights=7,
        source=1,
    )
    return Step(**{**values, **changes})


def example_image(**changes) -> ImageMsg:
    msg = messages.image_to_msg(RNG.integers(0, 255, (4, 6, 3), np.uint8), STAMP)
    for name, value in changes.items():
        setattr(msg, name, value)
    return msg


def equal(a, b) -> bool:
    return all(
        np.array_equal(x, y) if isinstance(x, np.ndarray) else x == y
        for x, y in ((getattr(a, f), getattr(b, f)) for f in a.__dataclass_fields__)
    )


def test_an_image_survives() -> None:
    image = RNG.integers(0, 255, (5, 7, 3), np.uint8)
    stamp, restored = messages.image_from_msg(messages.image_to_msg(image, STAMP))
    assert stamp == STAMP and np.array_equal(restored, image)


@pytest.mark.parametrize("encoding", ["bgr8", "rgba8", "bgra8", "mono8"])
def test_other_encodings_become_rgb(encoding: str) -> None:
    rgb = RNG.integers(0, 255, (3, 4, 3), np.uint8)
    alpha = np.zeros((3, 4, 1), np.uint8)
    pixels = {
        "bgr8": rgb[:, :, ::-1],
        "rgba8": np.concatenate([rgb, alpha], 2),
        "bgra8": np.concatenate([rgb[:, :, ::-1], alpha], 2),
        "mono8": rgb[:, :, :1],
    }[encoding]
    step = pixels[0].size + 5  # rows may be padded
    data = np.zeros((3, step), np.uint8)
    data[:, : pixels[0].size] = pixels.reshape(3, -1)
    msg = ImageMsg(height=3, width=4, encoding=encoding, step=step, data=array("B", data.tobytes()))
    expected = np.repeat(rgb[:, :, :1], 3, 2) if encoding == "mono8" else rgb
    assert np.array_equal(messages.image_from_msg(msg)[1], expected)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"encoding": "yuv422"}, "encoding"),
        ({"encoding": ""}, "encoding"),
        ({"height": 5}, "size"),
        ({"width": 7}, "size"),
        ({"width": 0}, "size"),
        ({"step": 3}, "size"),
        ({"data": array("B", b"123")}, "size"),
        ({"data": array("B")}, "size"),
    ],
)
def test_a_wrong_image_is_refused(changes: dict, reason: str) -> None:
    with pytest.raises(MessageError) as error:
        messages.image_from_msg(example_image(**changes))
    assert error.value.reason == reason


def test_a_step_survives() -> None:
    assert equal(messages.step_from_msg(messages.step_to_msg(example_step())), example_step())


def test_a_step_may_name_its_values_in_any_order() -> None:
    msg = messages.step_to_msg(example_step())
    order = RNG.permutation(len(msg.name))
    dims = [n for n in (msg.name[i] for i in order) if n.startswith("action/")]
    shuffled = JointState(header=msg.header, name=[msg.name[i] for i in order])
    shuffled.position = array("d", [msg.position[i] for i in order])
    restored = messages.step_from_msg(shuffled)
    expected = dict(zip(("action/x", "action/y"), example_step().executed))
    assert restored.executed.tolist() == [expected[d] for d in dims] and restored.reward == 1.25


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("reward", float("nan"), "non-finite"),
        ("action/x", float("inf"), "non-finite"),
        ("action/x", 1e300, "non-finite"),
        ("source", 17.0, "source"),
    ],
)
def test_a_wrong_value_in_a_step_is_refused(name: str, value: float, reason: str) -> None:
    msg = messages.step_to_msg(example_step())
    msg.position[list(msg.name).index(name)] = value
    with pytest.raises(MessageError) as error:
        messages.step_from_msg(msg)
    assert error.value.reason == reason


@pytest.mark.parametrize("drop", ["reward", "action/x", "commanded/y"])
def test_a_step_without_a_value_is_refused(drop: str) -> None:
    msg = messages.step_to_msg(example_step())
    indices = [i for i, n in enumerate(msg.name) if n != drop]
    shorter = JointState(name=[msg.name[i] for i in indices])
    shorter.position = array("d", [msg.position[i] for i in indices])
    with pytest.raises(MessageError, match=drop.rpartition("/")[2]):
        messages.step_from_msg(shorter)


@pytest.mark.parametrize(
    "msg", [JointState(), JointState(name=["a"]), JointState(name=["a", "a"], position=[0.0, 0.0])]
)
def test_joints_need_one_value_for_each_name(msg: JointState) -> None:
    with pytest.raises(MessageError):
        messages.joints_from_msg(msg)


def test_a_plan_survives() -> None:
    plan = Plan(STAMP, ORIGIN, ("x", "y"), RNG.normal(size=(3, 2)).astype(np.float32), 0.025)
    assert equal(messages.plan_from_msg(messages.plan_to_msg(plan)), plan)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda m: setattr(m, "points", []), "size"),
        (lambda m: setattr(m, "joint_names", []), "size"),
        (lambda m: setattr(m, "joint_names", ["x"]), "size"),
        (lambda m: setattr(m.points[1], "positions", [0.0]), "size"),
        (lambda m: setattr(m.points[0], "positions", [0.0, float("nan")]), "non-finite"),
        (lambda m: setattr(m.header, "frame_id", "actor@7"), "frame_id"),
        (lambda m: setattr(m.header, "frame_id", "mwm/actor@x"), "frame_id"),
        (lambda m: setattr(m.points[0].time_from_start, "sec", 9), "times"),
    ],
)
def test_a_wrong_plan_is_refused(change, reason: str) -> None:
    plan = Plan(STAMP, ORIGIN, ("x", "y"), np.zeros((2, 2), np.float32), 0.1)
    msg = messages.plan_to_msg(plan)
    change(msg)
    with pytest.raises(MessageError) as error:
        messages.plan_from_msg(msg)
    assert error.value.reason == reason


@pytest.mark.parametrize("count", [64, 65, 1])
def test_features_survive_and_form_a_grid(count: int) -> None:
    tokens = RNG.normal(size=(count, 32)).astype(np.float32)
    msg = messages.features_to_msg(Features(STAMP, ORIGIN, tokens))
    assert msg.height * msg.width == count and msg.encoding == "32FC32"
    assert equal(messages.features_from_msg(msg), Features(STAMP, ORIGIN, tokens))


def test_a_latent_survives() -> None:
    latent = Latent(STAMP, ORIGIN, RNG.normal(size=99).astype(np.float32))
    msg = messages.latent_to_msg(latent)
    assert (msg.height, msg.width, msg.encoding) == (1, 99, "32FC1")
    assert equal(messages.latent_from_msg(msg), latent)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"encoding": "rgb8"}, "encoding"),
        ({"encoding": "32FC0"}, "encoding"),
        ({"width": 3}, "size"),
        ({"data": array("B", b"1234")}, "size"),
        ({"data": array("B", np.full((4, 8), np.nan, np.float32).tobytes())}, "non-finite"),
    ],
)
def test_wrong_features_are_refused(changes: dict, reason: str) -> None:
    msg = messages.features_to_msg(Features(STAMP, ORIGIN, np.zeros((4, 8), np.float32)))
    for name, value in changes.items():
        setattr(msg, name, value)
    with pytest.raises(MessageError) as error:
        messages.features_from_msg(msg)
    assert error.value.reason == reason


ANNOUNCEMENT = {"version": 1, "path": "/a", "sha256": "b", "preset": "c"}
WRONG_FIELDS = (
    ("version", True),
    ("version", 2**40),
    ("version", 1.0),
    ("version", [1]),
    ("path", ["a"]),
    ("path", "x" * 5000),
    ("path", "a\0b"),
    ("sha256", 5),
    ("sha256", "xyz"),
    ("preset", None),
    ("step", "many"),
    ("step", -1),
    ("metrics", [1]),
    ("metrics", {"loss": "low"}),
)


def test_an_announcement_survives() -> None:
    announcement = Announcement(7, "/runs/a/weights/7", "ab", "mwm_cpu", 100, {"loss": 0.5})
    assert (
        messages.announcement_from_msg(messages.announcement_to_msg(announcement)) == announcement
    )


@pytest.mark.parametrize(
    "data",
    [
        "",
        "{",
        "[]",
        "7",
        '{"version": 7}',
        json.dumps({"version": "7", "path": "a", "sha256": "b", "preset": "c"}),
        json.dumps({"version": -1, "path": "a", "sha256": "b", "preset": "c"}),
        json.dumps({"version": 1, "path": "a", "sha256": "b", "preset": "c", "more": 1}),
        *(json.dumps({**ANNOUNCEMENT, name: value}) for name, value in WRONG_FIELDS),
        '{"version":' * 100_000 + "1" + "}" * 100_000,
        json.dumps({**ANNOUNCEMENT, "metrics": {"a": {"b": {}}}}),
        json.dumps({**ANNOUNCEMENT, "metrics": {str(n): n for n in range(5000)}}),
        '{"version": 1, "path": "a", "sha256": "b", "preset": "c", "metrics": {"x": NaN}}',
    ],
)
def test_a_wrong_announcement_is_refused(data: str) -> None:
    with pytest.raises(MessageError, match="weights"):
        messages.announcement_from_msg(String(data=data))


def test_a_spec_survives() -> None:
    axes = VectorSpec(("x",), ("m",), (-1.0,), (float("inf"),))
    spec = LogSpec("point", "origin", 0.1, {"top": (8, 8, 3)}, axes, axes, {"seed": 0})
    assert messages.spec_from_msg(messages.spec_to_msg(spec)) == spec


AXES = {"names": ["x"], "units": ["m"], "low": [-1.0], "high": ["inf"]}
SPEC = {
    "robot": "point", "task": "origin", "control_period_s": 0.1, "cameras": {"top": [8, 8, 3]},
    "proprio": AXES, "action": AXES, "extra": {}, "reward": True, "signals": None,
}  # fmt: skip
WRONG_SPECS = (
    ("robot", 1),
    ("robot", ["point"]),
    ("task", None),
    ("task", "x" * 1000),
    ("control_period_s", "0.1"),
    ("control_period_s", 0),
    ("control_period_s", 1e9),
    ("control_period_s", True),
    ("cameras", []),
    ("cameras", {"top": 8}),
    ("cameras", {"top": [8, 8]}),
    ("cameras", {"top": [8.5, 8, 3]}),
    ("cameras", {"top": [10**9, 8, 3]}),
    ("cameras", {"../top": [8, 8, 3]}),
    ("cameras", {str(n): [8, 8, 3] for n in range(100)}),
    ("proprio", "x"),
    ("proprio", [1]),
    ("action", {**AXES, "names": "x"}),
    ("action", {**AXES, "names": ["x", "y"]}),
    ("action", {**AXES, "low": ["nan"]}),
    ("action", {**AXES, "low": [10**400]}),
    ("action", {**AXES, "low": [2.0], "high": [1.0]}),
    ("action", {**AXES, "units": [["m"]]}),
    ("action", {"names": ["x"] * 5000, "units": [], "low": [], "high": []}),
    ("extra", [1]),
    ("extra", None),
    ("reward", "yes"),
    ("signals", 5),
    ("sensors", {"depth": {"dtype": "uint16", "shape": [10**9, 1], "units": "mm", "names": []}}),
    ("sensors", {"depth": {"dtype": ["u2"], "shape": [4], "units": "mm", "names": []}}),
    ("sensors", {"depth": None}),
)


@pytest.mark.parametrize(
    "data",
    [
        "",
        "[]",
        "{}",
        '{"robot": 1}',
        *(json.dumps({**SPEC, name: value}) for name, value in WRONG_SPECS),
        json.dumps({**SPEC, "extra": None}).replace("null}", "[" * 50_000 + "]" * 50_000 + "}"),
        json.dumps({**SPEC, "extra": {"deep": "HERE"}}).replace('"HERE"', "[" * 20 + "]" * 20),
        json.dumps({**SPEC, "extra": {"long": "x" * (2 << 20)}}),
        json.dumps({**SPEC, "control_period_s": 0.5}).replace("0.5", "1e999"),
    ],
)
def test_a_wrong_spec_is_refused(data: str) -> None:
    with pytest.raises(MessageError) as error:
        messages.spec_from_msg(String(data=data))
    assert error.value.reason == "json" and len(str(error.value)) < 500
    assert messages.spec_from_msg(String(data=json.dumps(SPEC))).robot == "point"
