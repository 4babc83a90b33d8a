"""rosbag2: bags of our own topics are restored exactly, others are synchronised to a clock."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.wm_datasets.formats.test_base import assert_same, contents, cut_log, export, import_log
from tests.wm_datasets.log_rows import append_episode, make_row, make_spec
from wm_datasets import LogReader, LogSpec, LogWriter, SensorSpec
from wm_datasets.formats import CorruptInputError, FormatError, Options, load_format

pytest.importorskip("rosbags")
cv2 = pytest.importorskip("cv2")

from rosbags.highlevel import AnyReader  # noqa: E402
from rosbags.rosbag2 import StoragePlugin, Writer  # noqa: E402
from rosbags.typesys import Stores, get_typestore  # noqa: E402

STORE = get_typestore(Stores.ROS2_HUMBLE)
T = STORE.types
SECOND = 1_000_000_000
BEGIN = 1_700_000_000 * SECOND


def recorded_log(path, lengths, *, weights=3, **changes):
    """A log as a recorder writes it: an episode's last row repeats the flags of the last action."""
    with LogWriter(path, make_spec(**changes)) as writer:
        for rows in lengths:
            for step in range(rows):
                last = step == rows - 1
                row = make_row(writer.length, step, last)
                row |= {"weights": weights, "source": 0, "success": step >= rows - 2}
                row["is_terminal"] = step >= rows - 2
                writer.append({k: v for k, v in row.items() if k in writer.spec.fields})
    return path


@pytest.mark.parametrize("layout", ["mcap", "sqlite3"])
def test_a_log_is_restored_bit_for_bit_without_losses(tmp_path, layout):
    log = recorded_log(tmp_path / "log", [5, 2, 17])
    assert export("rosbag", log, tmp_path / "bag", layout=layout) == []
    name = "log.mcap" if layout == "mcap" else "log.db3"
    assert {p.name for p in (tmp_path / "bag").iterdir()} == {"metadata.yaml", name}
    import_log("rosbag", tmp_path / "bag", tmp_path / "out")
    assert_same(log, tmp_path / "out")


def test_evaluation_is_read_from_explore_where_the_spec_does_not_declare_it(tmp_path, monkeypatch):
    """Bags that were recorded before logs had the mark: explore of `step` is 0."""
    with LogWriter(tmp_path / "log", make_spec(evaluation=True)) as writer:
        for number in range(10):
            row = make_row(number, number % 5, number % 5 == 4)
            writer.append(row | {"evaluation": number >= 5})
    to_json = LogSpec.to_json
    with monkeypatch.context() as patched:
        patched.setattr(
            LogSpec, "to_json", lambda s: {k: v for k, v in to_json(s).items() if k != "evaluation"}
        )
        export("rosbag", tmp_path / "log", tmp_path / "bag")
    import_log("rosbag", tmp_path / "bag", tmp_path / "out")
    with LogReader(tmp_path / "out") as reader:
        assert reader.read("evaluation", 0, 10).tolist() == [False] * 5 + [True] * 5


def test_depth_is_restored_and_other_sensors_are_reported(tmp_path):
    sensors = {"deep": SensorSpec.depth(3, 5), "force": SensorSpec("float32", (2,), "N")}
    with LogWriter(tmp_path / "log", make_spec(sensors=sensors)) as writer:
        for number in range(8):
            sensor_values = {"sensor/deep": np.full((3, 5), 60_000 + number, np.uint16),
                    "sensor/force": np.float32([number, 1])}  # fmt: skip
            writer.append(
                make_row(number, number, number == 7) | sensor_values | {"success": False}
            )
    losses = export("rosbag", tmp_path / "log", tmp_path / "bag")
    assert losses == ["sensors: force"]
    import_log("rosbag", tmp_path / "bag", tmp_path / "back")
    spec, _, rows = contents(tmp_path / "back")
    assert spec.sensors == {"deep": sensors["deep"]}
    assert (rows["sensor/deep"][:, 0, 0] == 60_000 + np.arange(8)).all()
    assert np.array_equal(rows["proprio"], contents(tmp_path / "log")[2]["proprio"])


def test_images_as_png_are_exact_and_as_jpeg_are_reported(tmp_path):
    log = recorded_log(tmp_path / "log", [5, 2])
    mapping = Path(load_format("rosbag.mapping").DEFAULT).read_text()
    (tmp_path / "png.yaml").write_text(mapping.replace("images: raw", "images: png"))
    assert export("rosbag", log, tmp_path / "png", topics=tmp_path / "png.yaml") == []
    import_log("rosbag", tmp_path / "png", tmp_path / "out")
    assert_same(log, tmp_path / "out")
    assert "JPEG" in export("rosbag", log, tmp_path / "jpeg", lossy=True)[0]
    import_log("rosbag", tmp_path / "jpeg", tmp_path / "out2")
    assert_same(log, tmp_path / "out2", without=["image/front", "image/wrist"])
    frames, expected = (contents(p)[2]["image/wrist"] for p in (tmp_path / "out2", log))
    assert np.abs(frames.astype(int) - expected).max() <= 3  # of one colour: JPEG keeps them


def test_a_cut_episode_stays_cut(tmp_path):
    log = cut_log(tmp_path / "log")
    assert export("rosbag", log, tmp_path / "bag") == []
    import_log("rosbag", tmp_path / "bag", tmp_path / "out")
    assert_same(log, tmp_path / "out")


def test_flags_that_only_the_last_row_has_are_reported(make_log, tmp_path):
    log = make_log([5, 1])
    assert "success of the last row" in export("rosbag", log, tmp_path / "bag")[0]


def test_logs_without_actions_or_rewards_are_restored(tmp_path):
    for name, changes in (("video", {"action": None}), ("demo", {"reward": False})):
        log = recorded_log(tmp_path / name, [4, 3], **changes)
        assert export("rosbag", log, tmp_path / f"{name}.bag") == []
        import_log("rosbag", tmp_path / f"{name}.bag", tmp_path / f"{name}.out")
        assert_same(log, tmp_path / f"{name}.out")


def test_episodes_whose_stamps_restart_are_not_mixed(tmp_path):
    with LogWriter(tmp_path / "log", make_spec()) as writer:
        for episode in range(3):
            for step in range(4):
                row = make_row(4 * episode + step, step, step == 3)
                writer.append(row | {"stamp": 50_000_000 * (step + 1), "success": False})
    assert export("rosbag", tmp_path / "log", tmp_path / "bag") == []
    import_log("rosbag", tmp_path / "bag", tmp_path / "out")
    assert_same(tmp_path / "log", tmp_path / "out")


def test_other_tools_read_standard_messages_of_transitions(tmp_path):
    log = recorded_log(tmp_path / "log", [3])
    export("rosbag", log, tmp_path / "bag")
    _, _, rows = contents(log)
    with AnyReader([tmp_path / "bag"]) as reader:  # without types other than those in the bag
        kinds = {t: info.msgtype for t, info in reader.topics.items()}
        assert kinds == {
            "/robot/spec": "std_msgs/msg/String",
            "/robot/step": "sensor_msgs/msg/JointState",
            "/robot/joint_states": "sensor_msgs/msg/JointState",
            "/robot/front/image": "sensor_msgs/msg/Image",
            "/robot/wrist/image": "sensor_msgs/msg/Image",
        }
        messages = [(c.topic, at, reader.deserialize(raw, c.msgtype))
                 for c, at, raw in reader.messages()]  # fmt: skip
    steps = [m for topic, _, m in messages if topic == "/robot/step"]
    assert steps[0].name[:3] == ["action/dx", "action/grip", "commanded/dx"]
    assert steps[0].position[:4].tolist() == [0, 0, 0, 0]
    assert np.array_equal(steps[2].position[:2], rows["action"][1])
    image = next(m for topic, _, m in messages if topic == "/robot/front/image")
    assert (image.height, image.width, image.encoding, image.step) == (4, 6, "rgb8", 18)
    assert np.array_equal(image.data.reshape(4, 6, 3), rows["image/front"][0])
    assert image.header.stamp.nanosec == 50_000_000
    times = [at for topic, at, _ in messages if topic == "/robot/step"]
    assert times == rows["stamp"].tolist()


def test_the_step_is_decoded_by_the_nodes(tmp_path):
    messages = pytest.importorskip("wm_nodes.ros.messages")
    from rclpy.serialization import deserialize_message
    from sensor_msgs.msg import JointState

    export("rosbag", recorded_log(tmp_path / "log", [3]), tmp_path / "bag")
    with AnyReader([tmp_path / "bag"]) as reader:
        expected = [c for c in reader.connections if c.topic == "/robot/step"]
        payloads = [raw for _, _, raw in reader.messages(expected)]
    steps = [messages.step_from_msg(deserialize_message(raw, JointState)) for raw in payloads]
    assert [s.is_first for s in steps] == [True, False, False]
    assert (steps[2].is_last, steps[2].weights, steps[2].names) == (True, 3, ("dx", "grip"))


def test_a_recording_without_a_spec_has_names_and_a_rate_but_no_units(tmp_path):
    log = recorded_log(tmp_path / "log", [5, 4])
    export("rosbag", log, tmp_path / "bag")
    with AnyReader([tmp_path / "bag"]) as reader:
        messages = [(at, c.topic, reader.deserialize(raw, c.msgtype))
                 for c, at, raw in reader.messages() if c.topic != "/robot/spec"]  # fmt: skip
    import_log(
        "rosbag", write_bag(tmp_path / "without_spec", messages), tmp_path / "out", robot="arm"
    )
    (spec, episodes, rows), (old, episodes2, rows2) = contents(tmp_path / "out"), contents(log)
    assert (spec.robot, spec.control_period_s, spec.cameras) == ("arm", 0.05, old.cameras)
    assert (spec.action.names, spec.action.units) == (("dx", "grip"), ("", ""))
    assert spec.proprio.names == ("x", "y", "z")
    assert episodes.tolist() == episodes2.tolist()
    assert all(np.array_equal(rows[name], rows2[name]) for name in rows2)


# Bags of other tools -----------------------------------------------------------------------------


def header(stamp):
    time = T["builtin_interfaces/msg/Time"](stamp // SECOND, stamp % SECOND)
    return T["std_msgs/msg/Header"](time, "")


def joints(stamp, names, values):
    none = np.zeros(0)
    return T["sensor_msgs/msg/JointState"](
        header(stamp), names, np.array(values, float), none, none
    )


def image(stamp, pixels, encoding, *, padding=0):
    height, width = pixels.shape[:2]
    lines = np.ascontiguousarray(pixels).view(np.uint8).reshape(height, -1)
    data = np.pad(lines, ((0, 0), (0, padding)))
    return T["sensor_msgs/msg/Image"](
        header(stamp), height, width, encoding, 0, data.shape[1], data.reshape(-1)
    )


def compressed(stamp, pixels, suffix, text):
    data = cv2.imencode(suffix, pixels)[1].reshape(-1)
    if "Depth" in text:
        data = np.concatenate([np.zeros(12, np.uint8), data])
    return T["sensor_msgs/msg/CompressedImage"](header(stamp), text, data)


def twist(x, z):
    vector = T["geometry_msgs/msg/Vector3"]
    return T["geometry_msgs/msg/Twist"](vector(x, 0.0, 0.0), vector(0.0, 0.0, z))


def write_bag(path, messages, storage=StoragePlugin.MCAP, *, ordered=True):
    """`messages`: (received [ns], topic, message); ordered: written in the order of reception."""
    with Writer(path, version=8, storage_plugin=storage) as bag:
        connections = {}
        for at, topic, message in sorted(messages, key=lambda m: m[0] if ordered else 0):
            type_name = message.__msgtype__
            if topic not in connections:
                connections[topic] = bag.add_connection(topic, type_name, typestore=STORE)
            bag.write(connections[topic], at, STORE.serialize_cdr(message, type_name))
    return path


MAPPING = """
clock: top
cameras: {top: /camera/color/image_raw, depth: {topic: /camera/depth/image_raw, depth_m: [0, 2]}}
proprio:
  - {topic: /joint_states, field: position, names: [elbow, shoulder], unit: rad}
action:
  - {topic: /cmd_vel, field: [linear.x, angular.z], unit: [m/s, rad/s], low: -2, high: 2}
"""


@pytest.fixture
def mapping(tmp_path):
    (tmp_path / "topics.yaml").write_text(MAPPING)
    return tmp_path / "topics.yaml"


def foreign_messages(seconds=1.0, late_ns=30_000_000):
    """Cameras at 10 Hz, joints at 100 Hz of two publishers, commands at 25 Hz without stamps."""
    messages = []
    for i in range(int(10 * seconds)):
        stamp = BEGIN + i * SECOND // 10
        pixels = np.full((4, 6, 3), [i, 100, 200], np.uint8)
        messages.append((stamp + late_ns, "/camera/color/image_raw",
                      image(stamp, pixels, "bgr8", padding=6)))  # fmt: skip
        depth = np.full((4, 6), 1000 + i, np.uint16)
        depth[0, 0] = 0
        messages.append((stamp + late_ns, "/camera/depth/image_raw", image(stamp, depth, "16UC1")))
    for i in range(int(100 * seconds)):
        stamp = BEGIN + i * SECOND // 100
        values = [0.5, i / 100, 2.0]
        messages.append(
            (stamp + 1, "/joint_states", joints(stamp, ["hip", "shoulder", "elbow"], values))
        )
        messages.append((stamp + 2, "/joint_states", joints(stamp, ["gripper"], [0.1])))
    for i in range(int(25 * seconds)):
        messages.append((BEGIN + i * SECOND // 25, "/cmd_vel", twist(i / 100, -1.0)))
    messages.append((BEGIN, "/rosout", T["std_msgs/msg/String"]("hello")))
    return messages


@pytest.mark.parametrize("storage", list(StoragePlugin))
def test_a_foreign_bag_is_synchronised_to_a_camera(tmp_path, mapping, storage):
    bag = write_bag(tmp_path / "demo", foreign_messages(), storage)
    with load_format("rosbag").Import(bag, Options(topics=mapping)) as importer:
        losses = " ".join(importer.losses)
    assert all(loss in losses for loss in ("/rosout", "/joint_states at", "grey", "float32"))
    import_log("rosbag", bag, tmp_path / "out", topics=mapping, robot="arm")
    spec, episodes, rows = contents(tmp_path / "out")
    assert (spec.robot, spec.task, spec.control_period_s) == ("arm", "demo", 0.1)
    assert spec.cameras == {"top": (4, 6, 3), "depth": (4, 6, 3)}
    assert (spec.proprio.names, spec.proprio.units) == (("elbow", "shoulder"), ("rad", "rad"))
    assert (spec.action.names, spec.action.low) == (("linear.x", "angular.z"), (-2, -2))
    assert spec.extra["absent"] == ["reward", "success"]
    assert episodes.tolist() == [(0, 10, True)]
    assert rows["stamp"].tolist() == [BEGIN + i * SECOND // 10 for i in range(10)]
    assert rows["image/top"][:, 0, 0].tolist() == [[200, 100, i] for i in range(10)]
    assert np.allclose(rows["proprio"], [[2.0, 0.1 * i] for i in range(10)])
    # in force when the next image arrives: the latest of the commands (every 40 ms) before it
    before = [max(k for k in range(25) if 40 * k < 100 * (i + 1)) for i in range(9)]
    assert np.allclose(rows["action"][:9, 0], np.array(before) / 100)
    assert np.allclose(rows["action"][9], 0)
    assert rows["image/depth"][0, 0, 0].tolist() == [0, 0, 0]  # no measurement
    assert rows["image/depth"][0, 1, 1].tolist() == [128, 128, 128]


def test_depth_of_a_foreign_bag_may_be_kept_in_millimetres(tmp_path, mapping):
    write_bag(tmp_path / "bag", foreign_messages())
    text = mapping.read_text()
    grey = ", depth: {topic: /camera/depth/image_raw, depth_m: [0, 2]}"
    assert grey in text
    mapping.write_text(text.replace(grey, "") + "depths: {depth: /camera/depth/image_raw}\n")
    import_log("rosbag", tmp_path / "bag", tmp_path / "log", topics=mapping)
    spec, _, rows = contents(tmp_path / "log")
    assert spec.cameras == {"top": (4, 6, 3)} and spec.sensors["depth"].is_depth
    depth = rows["sensor/depth"]
    assert not depth[:, 0, 0].any() and (np.diff(depth[:, 1, 1].astype(int)) >= 0).all()
    assert depth[:, 1, 1].min() >= 1000 and depth.max() < 1100


def test_a_foreign_bag_is_synchronised_to_a_period(tmp_path, mapping):
    bag = write_bag(tmp_path / "demo", foreign_messages(2.0))
    import_log("rosbag", bag, tmp_path / "out", topics=mapping, period_s=0.25)
    spec, _, rows = contents(tmp_path / "out")
    assert spec.control_period_s == 0.25
    assert np.diff(rows["stamp"]).tolist() == [SECOND // 4] * (len(rows["stamp"]) - 1)
    since = (rows["stamp"] - BEGIN) / 1e9
    assert rows["image/top"][:, 0, 0, 2].tolist() == np.floor(since * 10 + 1e-6).tolist()
    assert np.allclose(rows["proprio"][:, 1], np.floor(since * 100 + 1e-6) / 100)


def test_a_command_stamped_as_its_observation_belongs_to_that_row(tmp_path, mapping):
    messages = [m for m in foreign_messages() if m[1] != "/cmd_vel"]
    messages += [(BEGIN + i * SECOND // 10, "/cmd_vel", twist(float(i), 0.0)) for i in range(10)]
    import_log("rosbag", write_bag(tmp_path / "demo", messages), tmp_path / "out", topics=mapping)
    assert contents(tmp_path / "out")[2]["action"][:, 0].tolist() == [*range(9), 0]


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (lambda s: image(s, np.full((4, 6, 3), [1, 2, 3], "u1"), "rgb8"), [1, 2, 3]),
        (lambda s: image(s, np.full((4, 6, 4), [3, 2, 1, 9], "u1"), "bgra8"), [1, 2, 3]),
        (lambda s: image(s, np.full((4, 6), 7, "u1"), "mono8", padding=2), [7, 7, 7]),
        (lambda s: image(s, np.full((4, 6), 1.0, "<f4"), "32FC1"), [128, 128, 128]),
        (lambda s: compressed(s, np.full((4, 6, 3), [3, 2, 1], "u1"), ".png", "bgr8; png"),
         [1, 2, 3]),
        (lambda s: compressed(s, np.full((8, 8, 3), 90, "u1"), ".jpg", "jpeg"), [90, 90, 90]),
        (lambda s: compressed(s, np.full((4, 6), 1000, "u2"), ".png", "16UC1; compressedDepth png"),
         [128, 128, 128]),
    ],
)  # fmt: skip
def test_images_of_all_encodings(tmp_path, message, expected):
    images = [message(BEGIN + i * SECOND // 10) for i in range(3)]
    bag = write_bag(tmp_path / "demo", [(BEGIN + i, "/eye", m) for i, m in enumerate(images)])
    deep = ", depth_m: [0, 2]" if expected[0] == 128 else ""
    (tmp_path / "t.yaml").write_text(f"cameras: {{eye: {{topic: /eye{deep}}}}}")
    import_log("rosbag", bag, tmp_path / "out", topics=tmp_path / "t.yaml")
    spec, _, rows = contents(tmp_path / "out")
    assert (spec.action, spec.proprio, len(rows["stamp"])) == (None, None, 3)
    assert (rows["image/eye"] == expected).all()


def test_a_gap_in_a_topic_is_reported_and_its_end_ends_the_episode(tmp_path, mapping):
    messages = foreign_messages(4.0)
    with_gap = [m for m in messages if m[1] != "/joint_states" or not 1 < (m[0] - BEGIN) / 1e9 < 3]
    bag = write_bag(tmp_path / "quiet", with_gap)
    with pytest.raises(CorruptInputError, match=r"nothing on /joint_states.*max_age_s"):
        import_log("rosbag", bag, tmp_path / "out", topics=mapping)
    without_end = [m for m in messages if m[1] != "/joint_states" or (m[0] - BEGIN) / 1e9 < 1]
    import_log(
        "rosbag", write_bag(tmp_path / "ends", without_end), tmp_path / "out2", topics=mapping
    )
    assert len(contents(tmp_path / "out2")[2]["stamp"]) == 20


def test_a_folder_of_bags_and_a_broken_one(tmp_path, mapping):
    folder = tmp_path / "bags"
    folder.mkdir()
    for name in "abc":
        write_bag(folder / name, foreign_messages())
    whole = (folder / "b/b.mcap").read_bytes()
    (folder / "b/b.mcap").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CorruptInputError, match="bags/b"):
        import_log("rosbag", folder, tmp_path / "out", topics=mapping)
    assert len(contents(tmp_path / "out")[1]) == 1
    result = import_log("rosbag", folder, tmp_path / "out", topics=mapping, skip_corrupt=True)
    assert (result.episodes, result.resumed, list(result.skipped)) == (2, 1, ["b"])


def test_a_flipped_bit_in_an_image_is_detected(tmp_path):
    bag = write_bag(tmp_path / "demo", [
        (at, "/eye", compressed(at, np.eye(64, dtype="u1"), ".png", "png"))
        for at in (BEGIN, BEGIN + SECOND)])  # fmt: skip
    raw = bytearray((bag / "demo.mcap").read_bytes())
    at = raw.rindex(b"\x89PNG")
    raw[at + 1] ^= 255
    (bag / "demo.mcap").write_bytes(raw)
    (tmp_path / "t.yaml").write_text("cameras: {eye: /eye}")
    with pytest.raises(CorruptInputError, match="expected a readable image"):
        import_log("rosbag", bag, tmp_path / "out", topics=tmp_path / "t.yaml")


def test_a_step_without_its_image_is_named_except_at_the_end_of_the_recording(tmp_path):
    log = recorded_log(tmp_path / "log", [5, 6])
    export("rosbag", log, tmp_path / "bag")
    with AnyReader([tmp_path / "bag"]) as reader:
        messages = [(at, c.topic, reader.deserialize(raw, c.msgtype))
                 for c, at, raw in reader.messages()]  # fmt: skip
    stamps = contents(log)[2]["stamp"].tolist()
    without_image = [
        m for m in messages if not (m[0] == stamps[2] and m[1] == "/robot/front/image")
    ]
    with pytest.raises(CorruptInputError, match=f"{stamps[2]} ns lacks .*front"):
        import_log("rosbag", write_bag(tmp_path / "without_image", without_image), tmp_path / "out")
    # begun in the middle of episode 0, stopped in the middle of episode 1, out of order
    late = [(at + (90_000_000 if "image" in topic else 0), topic, m) for at, topic, m in messages
            if at >= stamps[2] and at <= stamps[8]
            and not (at == stamps[2] and "image" in topic)
            and not (at == stamps[8] and "joint" in topic)]  # fmt: skip
    late.append((0, "/robot/spec", messages[0][2]))
    import_log("rosbag", write_bag(tmp_path / "late", late), tmp_path / "out2")
    _, episodes, rows = contents(tmp_path / "out2")
    assert episodes.tolist() == [(0, 2, True), (2, 3, False)]
    assert rows["stamp"].tolist() == [*stamps[3:5], *stamps[5:8]]
    assert np.array_equal(rows["action"][2:], contents(log)[2]["action"][5:8])


@pytest.mark.parametrize(
    ("text", "expected_message"),
    [
        ("cameras: {eye: /nowhere}", r"no \['eye'\].*It has: /rosout \(std_msgs/msg/String\)"),
        ("camera: {eye: /rosout}", r"unknown \['camera'\]"),
        (
            "cameras: {eye: {topic: /eye, depth_m: [2, 1]}}",
            r"depth_m: got \[2.*\], expected \[near, far\]",
        ),
        ("images: gif", "images: got 'gif', expected one of raw, png, jpeg"),
        ("]", "it is not YAML"),
    ],
)
def test_errors_in_the_mapping_are_reported(tmp_path, text, expected_message):
    bag = write_bag(tmp_path / "demo", [(0, "/rosout", T["std_msgs/msg/String"]("hello"))])
    (tmp_path / "t.yaml").write_text(text)
    with pytest.raises(FormatError, match=expected_message):
        import_log("rosbag", bag, tmp_path / "out", topics=tmp_path / "t.yaml")
    assert not (tmp_path / "out").exists()


def test_stamps_of_two_clocks_are_not_compared(tmp_path, mapping):
    messages = [(at - BEGIN, topic, m) if topic == "/cmd_vel" else (at, topic, m)
                for at, topic, m in foreign_messages()]  # fmt: skip
    messages = [(at % BEGIN, topic, m) for at, topic, m in messages]  # all received in sim time
    bag = write_bag(tmp_path / "demo", messages)
    with pytest.raises(FormatError, match="stamps: received"):
        import_log("rosbag", bag, tmp_path / "out", topics=mapping)
    mapping.write_text(MAPPING + "stamps: received\n")
    import_log("rosbag", bag, tmp_path / "out", topics=mapping)
    assert contents(tmp_path / "out")[2]["stamp"][0] == 30_000_000


def test_an_empty_log_is_an_empty_bag(tmp_path):
    LogWriter(tmp_path / "log", make_spec()).close()
    export("rosbag", tmp_path / "log", tmp_path / "bag")
    with AnyReader([tmp_path / "bag"]) as reader:
        assert reader.message_count == 1
        raw = next(iter(reader.messages()))[2]
        expected_message = json.loads(reader.deserialize(raw, "std_msgs/msg/String").data)
    assert expected_message == make_spec().to_json()


def test_stamps_that_ros_has_no_time_for_are_refused(tmp_path):
    with LogWriter(tmp_path / "log", make_spec()) as writer:
        append_episode(writer, 2)
        writer.append(make_row(2, 0, False) | {"stamp": 2**62})
        writer.append(make_row(3, 1, True) | {"stamp": 2**62 + 1})
    with (
        LogReader(tmp_path / "log") as reader,
        pytest.raises(FormatError, match="expected times that ROS can hold"),
    ):
        load_format("rosbag").Export(reader, Options())
