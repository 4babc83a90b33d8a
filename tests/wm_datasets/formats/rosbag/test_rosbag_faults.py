"""Faults of bags: clocks that jump, several publishers, additional or damaged files."""

import json
import sqlite3

import numpy as np
import pytest

from tests.wm_datasets.formats.rosbag.test_rosbag import (
    BEGIN,
    MAPPING,
    SECOND,
    STORE,
    foreign_messages,
    image,
    joints,
    recorded_log,
    write_bag,
)
from tests.wm_datasets.formats.test_base import contents, export, import_log
from wm_datasets.formats import CorruptInputError, Options, load_format

pytest.importorskip("rosbags")

from rosbags.highlevel import AnyReader
from rosbags.rosbag2 import StoragePlugin


@pytest.fixture
def mapping(tmp_path):
    """Cameras, joints and stamped commands."""
    text = MAPPING.replace("/cmd_vel, field: [linear.x, angular.z]",
                           "/cmd_vel, field: [twist.linear.x, twist.angular.z]")  # fmt: skip
    (tmp_path / "topics.yaml").write_text(text)
    return tmp_path / "topics.yaml"


def shifted(messages, at_s, by_s, *, received=False, only=""):
    """The messages with stamps shifted from `at_s` after the beginning on; `received` too?"""
    result = []
    for at, topic, message in messages:
        if at >= BEGIN + at_s * SECOND and only in topic:
            if hasattr(message, "header"):
                stamp = message.header.stamp
                total = stamp.sec * SECOND + stamp.nanosec + round(by_s * SECOND)
                stamp = type(stamp)(total // SECOND, total % SECOND)
                message = type(message)(**{
                    **{k: v for k, v in vars(message).items() if not k.startswith("_")},
                    "header": type(message.header)(stamp, ""),
                })  # fmt: skip
            at += round(by_s * SECOND) if received else 0
        result.append((at, topic, message))
    return result


def stamped(seconds):
    """Messages that all have a header, received without delay."""
    kind = STORE.types["geometry_msgs/msg/TwistStamped"]
    messages = []
    for at, topic, message in foreign_messages(seconds, late_ns=0):
        if topic == "/cmd_vel":
            message = kind(joints(at, [], []).header, message)
        if topic != "/rosout":
            messages.append((at, topic, message))
    return messages


def losses(source, topics):
    with load_format("rosbag").Import(source, Options(topics=topics)) as importer:
        return importer.keys, "\n".join(importer.losses)


def lengths(log):
    return contents(log)[1]["length"].tolist()


# Clocks ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("by_s", "received"),
    [(-5.0, False), (-0.7, False), (3.0, False), (1e8, False), (3.0, True), (1e8, True)],
)
def test_a_clock_jump_begins_an_episode(tmp_path, mapping, by_s, received):
    bag = write_bag(tmp_path / "bag", shifted(stamped(4.0), 2.0, by_s, received=received))
    keys, expected_message = losses(bag, mapping)
    assert keys == ["bag#0", "bag#1"] and "becomes 2 episodes" in expected_message
    assert import_log("rosbag", bag, tmp_path / "log", topics=mapping).episodes == 2
    _, episodes, rows = contents(tmp_path / "log")
    assert episodes["length"].tolist() == [20, 20] and episodes["complete"].all()
    image_numbers = rows["image/top"][:, 0, 0, 2]  # the number of the image
    assert image_numbers.tolist() == list(range(40))
    assert np.allclose(rows["proprio"][:, 1], image_numbers / 10)  # joints of the same moment
    assert (np.diff(rows["stamp"][:20]) == SECOND // 10).all()
    assert rows["stamp"][20] - rows["stamp"][19] == SECOND // 10 + round(by_s * SECOND)


@pytest.mark.parametrize("storage", list(StoragePlugin))
def test_a_recorder_whose_clock_was_set_back_is_named(tmp_path, mapping, storage):
    messages = shifted(stamped(4.0), 2.0, -0.95, received=True)
    bag = write_bag(tmp_path / "bag", messages, storage, ordered=False)
    with pytest.raises(CorruptInputError, match=r"recorder's clock was set back by 0\.8\d* s"):
        import_log("rosbag", bag, tmp_path / "log", topics=mapping)
    by_topic = sorted(stamped(4.0), key=lambda m: m[1])  # written topic after topic: accepted
    bag = write_bag(tmp_path / "by_topic", by_topic, storage, ordered=False)
    assert import_log("rosbag", bag, tmp_path / "out", topics=mapping).rows == 40


def test_a_clock_jump_with_a_period_begins_an_episode(tmp_path, mapping):
    bag = write_bag(tmp_path / "bag", shifted(stamped(4.0), 2.0, 1e8))
    import_log("rosbag", bag, tmp_path / "log", topics=mapping, period_s=0.25)
    episode_lengths = lengths(tmp_path / "log")
    assert len(episode_lengths) > 1 and set(episode_lengths) <= {7, 8}


@pytest.mark.parametrize(
    ("change", "expected_message"),
    [
        (lambda m: shifted(m, 2.0, -5.0, only="color"), "color/image_raw jump by -4.9 s .* do not"),
        (lambda m: [(at, t, x.twist if t == "/cmd_vel" else x) for at, t, x in shifted(m, 2.0, -5)],
         "those of /cmd_vel do not"),
        (lambda m: shifted(m, 0.0, -60.0, only="joint"), "/joint_states are up to 60 s behind"),
        (lambda m: shifted(m, 2.0, 5.0, only="joint"), "/joint_states jump by 5.01 s .* do not"),
        (lambda m: [*m, (BEGIN + SECOND, "/joint_states", joints(0, ["elbow"], [np.nan]))],
         "expected finite float32 values"),
        (lambda m: [*m, (BEGIN + SECOND, "/joint_states", joints(-SECOND, ["elbow"], [0.0]))],
         "stamp: got -1000000000 ns, expected at least 0"),
        (lambda m: [*m, (BEGIN + SECOND, "/joint_states", joints(BEGIN, ["a", "elbow"], [0.0]))],
         "position: got 1 numbers, expected 0 or 2"),
    ],
)  # fmt: skip
def test_a_faulty_bag_is_named_and_can_be_skipped(tmp_path, mapping, change, expected_message):
    folder = tmp_path / "bags"
    folder.mkdir()
    messages_of_a_bag = stamped(4.0)
    plain = MAPPING if "cmd_vel" in expected_message else mapping.read_text()
    mapping.write_text(plain)
    for name in "abc":
        messages = change(messages_of_a_bag) if name == "b" else messages_of_a_bag
        if plain is MAPPING:
            messages = [(at, t, getattr(x, "twist", x)) for at, t, x in messages]
        write_bag(folder / name, messages)
    with pytest.raises(CorruptInputError, match=f"bags/b: .*{expected_message}") as error:
        import_log("rosbag", folder, tmp_path / "log", topics=mapping)
    assert "\n" not in str(error.value)
    assert lengths(tmp_path / "log") == [40]  # nothing of b
    result = import_log("rosbag", folder, tmp_path / "log", topics=mapping, skip_corrupt=True)
    assert (result.episodes, list(result.skipped)) == (2, ["b"])
    assert lengths(tmp_path / "log") == [40, 40]


def test_the_first_bag_may_be_the_faulty_one(tmp_path, mapping):
    folder = tmp_path / "bags"
    folder.mkdir()
    write_bag(folder / "a", [m for m in stamped(1.0) if "depth" not in m[1]])
    write_bag(folder / "b", stamped(1.0))
    with pytest.raises(CorruptInputError, match=r"bags/a: no \['depth'\]"):
        import_log("rosbag", folder, tmp_path / "log", topics=mapping)
    result = import_log("rosbag", folder, tmp_path / "log", topics=mapping, skip_corrupt=True)
    assert (result.episodes, list(result.skipped)) == (1, ["a"])


def test_an_error_of_any_kind_leaves_no_half_episode(tmp_path, mapping, monkeypatch):
    from wm_datasets.formats.rosbag import resampled

    remaining = iter(range(20))

    def fails(message, depth_m):
        if next(remaining, None) is None:
            raise OSError(5, "Input/output error")
        return np.zeros((4, 6, 3), np.uint8)

    bag = write_bag(tmp_path / "bag", stamped(4.0))
    monkeypatch.setattr(resampled, "image_of", fails)
    with pytest.raises(CorruptInputError, match=r"bag: OSError: .*Input/output error"):
        import_log("rosbag", bag, tmp_path / "log", topics=mapping)
    assert lengths(tmp_path / "log") == []
    assert json.loads((tmp_path / "log/import.json").read_text())["done"] == []


def test_a_pause_of_all_topics_ends_an_episode(tmp_path, mapping):
    messages = [m for m in stamped(6.0) if not 2 <= (m[0] - BEGIN) / 1e9 < 4]
    bag = write_bag(tmp_path / "bag", messages)
    import_log("rosbag", bag, tmp_path / "log", topics=mapping)
    assert lengths(tmp_path / "log") == [20, 20]


def test_a_slow_camera_is_no_pause(tmp_path):
    messages = [(BEGIN + i * 2 * SECOND, "/eye",
             image(BEGIN + i * 2 * SECOND, np.full((4, 6, 3), i, "u1"), "rgb8"))
            for i in range(6)]  # fmt: skip
    (tmp_path / "t.yaml").write_text("cameras: {eye: /eye}")
    bag = write_bag(tmp_path / "bag", messages)
    import_log("rosbag", bag, tmp_path / "log", topics=tmp_path / "t.yaml")
    assert lengths(tmp_path / "log") == [6]


def test_late_messages_are_synchronized_by_their_stamps(tmp_path, mapping):
    late = [(at + (3 * SECOND if "camera" in topic else 0), topic, m)
            for at, topic, m in stamped(4.0)]  # fmt: skip
    import_log("rosbag", write_bag(tmp_path / "bag", late), tmp_path / "log", topics=mapping)
    rows = contents(tmp_path / "log")[2]
    assert np.allclose(rows["proprio"][:, 1], rows["image/top"][:, 0, 0, 2] / 10)


def test_stamps_in_the_future_are_named(tmp_path, mapping):
    bag = write_bag(tmp_path / "bag", shifted(stamped(2.0), 0.0, 0.4, only="color"))
    expected_message = losses(bag, mapping)[1]
    assert (
        "bag: /camera/color/image_raw has stamps up to 0.4 s after their reception"
        in expected_message
    )
    assert "Synchronise the clocks" in expected_message and "stamps: received" in expected_message
    assert (
        "after their reception" not in losses(write_bag(tmp_path / "b", stamped(2.0)), mapping)[1]
    )


def test_the_rate_is_that_of_the_stamps(tmp_path, mapping):
    swapped = []
    for at, topic, message in stamped(2.0):
        number = round((at - BEGIN) / SECOND * 10)
        later = 150_000_000 if "camera" in topic and number % 2 == 0 else 0
        swapped.append((at + later, topic, message))
    import_log("rosbag", write_bag(tmp_path / "bag", swapped), tmp_path / "log", topics=mapping)
    spec, _, rows = contents(tmp_path / "log")
    assert spec.control_period_s == 0.1
    assert rows["image/top"][:, 0, 0, 2].tolist() == list(range(20))


def test_a_recording_with_step_has_the_rate_of_its_stamps_too(tmp_path):
    log = recorded_log(tmp_path / "log", [9])
    export("rosbag", log, tmp_path / "bag")
    with AnyReader([tmp_path / "bag"]) as reader:
        messages = [(at, c.topic, reader.deserialize(raw, c.msgtype))
                 for c, at, raw in reader.messages() if c.topic != "/robot/spec"]  # fmt: skip
    # the same stamps again for the next episode, at once after this one
    length = max(at for at, _, _ in messages) - min(at for at, _, _ in messages) + 25_000_000
    messages += [(at + length, topic, m) for at, topic, m in messages]
    bag = write_bag(tmp_path / "twice", messages)
    import_log("rosbag", bag, tmp_path / "out")
    spec, episodes, rows = contents(tmp_path / "out")
    assert spec.control_period_s == 0.05 and episodes["length"].tolist() == [9, 9]
    assert np.array_equal(rows["proprio"][:9], rows["proprio"][9:])


# Several publishers ---------------------------------------------------------------------------

ALL_JOINTS = """
cameras: {top: /camera/color/image_raw}
proprio: [{topic: /joint_states, field: position}]
"""


@pytest.mark.parametrize("first", ["arm", "gripper"])
def test_joints_of_two_publishers_are_all_kept(tmp_path, first):
    (tmp_path / "t.yaml").write_text(ALL_JOINTS)
    messages = []
    for at, topic, message in stamped(2.0):
        gripper = topic == "/joint_states" and message.name == ["gripper"]
        if gripper:
            message = joints(at - 2, ["gripper"], [(at - 2 - BEGIN) / SECOND])
        messages.append((at - 1 if gripper and first == "gripper" else at, topic, message))
    bag = write_bag(tmp_path / "bag", messages)
    import_log("rosbag", bag, tmp_path / "log", topics=tmp_path / "t.yaml")
    spec, _, rows = contents(tmp_path / "log")
    assert set(spec.proprio.names) == {"hip", "shoulder", "elbow", "gripper"}
    at = spec.proprio.names.index
    time = (rows["stamp"] - BEGIN) / 1e9
    assert np.allclose(rows["proprio"][:, at("shoulder")], time)
    assert np.allclose(rows["proprio"][:, at("gripper")], time, atol=1e-6)


def test_names_that_are_left_out_are_counted(tmp_path, mapping):
    expected_message = losses(write_bag(tmp_path / "bag", stamped(1.0)), mapping)[1]
    assert "numbers of /joint_states, in how many of its 200 messages: " in expected_message
    assert (
        "hip (100)" in expected_message
        and "gripper (100)" in expected_message
        and "elbow" not in expected_message
    )


def test_a_publisher_with_a_gap_is_named(tmp_path):
    (tmp_path / "t.yaml").write_text(ALL_JOINTS)
    with_gap = [(at, t, m) for at, t, m in stamped(4.0)
             if not (t == "/joint_states" and m.name == ["gripper"]
                     and 1 < (at - BEGIN) / 1e9 < 3)]  # fmt: skip
    with pytest.raises(CorruptInputError, match="nothing on /joint_states of gripper for 1"):
        import_log("rosbag", write_bag(tmp_path / "a", with_gap), tmp_path / "log",
              topics=tmp_path / "t.yaml")  # fmt: skip
    without_end = [m for m in with_gap if (m[0] - BEGIN) / 1e9 < 3 or m[1] != "/joint_states"
            or m[2].name != ["gripper"]]  # fmt: skip
    import_log(
        "rosbag",
        write_bag(tmp_path / "b", without_end),
        tmp_path / "out",
        topics=tmp_path / "t.yaml",
    )
    assert lengths(tmp_path / "out") == [20]  # until a second after its last message


def test_another_bag_without_one_of_the_joints_is_named(tmp_path):
    (tmp_path / "t.yaml").write_text(ALL_JOINTS)
    folder = tmp_path / "bags"
    folder.mkdir()
    write_bag(folder / "a", stamped(1.0))
    write_bag(folder / "b", [m for m in stamped(1.0)
                             if m[1] != "/joint_states" or m[2].name != ["gripper"]])  # fmt: skip
    with pytest.raises(
        CorruptInputError,
        match=r"bags/b: .*joint_states: names: got \['gripper'\], which no message has",
    ):
        import_log("rosbag", folder, tmp_path / "log", topics=tmp_path / "t.yaml")


def test_commands_of_two_publishers_are_one_action(tmp_path):
    (tmp_path / "t.yaml").write_text(ALL_JOINTS + "action: [{topic: /goal, field: position}]\n")
    messages = stamped(2.0)
    for i in range(20):
        at = BEGIN + i * SECOND // 10
        messages.append((at + 1, "/goal", joints(at + 1, ["arm"], [i])))
        messages.append((at + 2, "/goal", joints(at + 2, ["hand"], [-i])))
    import_log("rosbag", write_bag(tmp_path / "bag", messages), tmp_path / "log",
          topics=tmp_path / "t.yaml")  # fmt: skip
    spec, _, rows = contents(tmp_path / "log")
    assert spec.action.names == ("arm", "hand")
    assert rows["action"].tolist() == [[i, -i] for i in range(19)] + [[0, 0]]


# Files ----------------------------------------------------------------------------------------


def test_a_write_ahead_log_beside_a_database_is_refused_until_it_is_merged(tmp_path, mapping):
    bag = write_bag(tmp_path / "bag", stamped(2.0), StoragePlugin.SQLITE3)
    file = bag / "bag.db3"
    with sqlite3.connect(file) as database:
        rows = database.execute("SELECT topic_id, timestamp, data FROM messages").fetchall()
    connection = sqlite3.connect(file)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("DELETE FROM messages WHERE timestamp >= ?", (BEGIN + SECOND,))
    connection.commit()
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.executemany(
        "INSERT INTO messages (topic_id, timestamp, data) VALUES (?, ?, ?)",
        [row for row in rows if row[1] >= BEGIN + SECOND],
    )
    connection.commit()
    copy = tmp_path / "copy"  # as a killed recorder leaves it
    copy.mkdir()
    for path in bag.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    connection.close()
    for source in (copy, copy / "bag.db3"):
        with pytest.raises(
            CorruptInputError, match=r"bag\.db3-wal.*End its recorder, run sqlite3 \S+ \""
        ) as e:
            import_log("rosbag", source, tmp_path / "log", topics=mapping)
    error_text = str(e.value)
    statement = error_text[error_text.index('"') + 1 : error_text.rindex('"')]
    with sqlite3.connect(copy / "bag.db3") as database:  # as the remedy says
        database.execute(statement)
    database.close()
    import_log("rosbag", copy, tmp_path / "log", topics=mapping)
    assert lengths(tmp_path / "log") == [20]


@pytest.mark.parametrize(
    ("storage", "suffix"), [(StoragePlugin.MCAP, "mcap"), (StoragePlugin.SQLITE3, "db3")]
)
def test_a_file_that_was_renamed_is_named_with_its_remedy(tmp_path, mapping, storage, suffix):
    bag = write_bag(tmp_path / "bag", stamped(1.0), storage)
    (bag / f"bag.{suffix}").rename(bag / f"mine.{suffix}")
    with pytest.raises(CorruptInputError, match=f"names bag.{suffix}, the folder holds mine"):
        import_log("rosbag", bag, tmp_path / "log", topics=mapping)
    import_log("rosbag", bag / f"mine.{suffix}", tmp_path / "log", topics=mapping)
    assert lengths(tmp_path / "log") == [10]


def test_files_that_metadata_does_not_name_are_announced(tmp_path, mapping):
    bag = write_bag(tmp_path / "bag", stamped(1.0))
    (bag / "bag_1.mcap").write_bytes((bag / "bag.mcap").read_bytes())
    assert "metadata.yaml does not name: bag_1.mcap" in losses(bag, mapping)[1]


@pytest.mark.parametrize("loose", [False, True])
def test_a_bag_that_was_cut_short_is_named_with_its_remedy(tmp_path, mapping, loose):
    bag = write_bag(tmp_path / "bag", stamped(1.0))
    file = bag / "bag.mcap"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(CorruptInputError, match=r"Run mcap recover \S+ -o \S+\.mcap"):
        import_log("rosbag", file if loose else bag, tmp_path / "log", topics=mapping)


def test_a_broken_metadata_is_named_with_its_remedy(tmp_path, mapping):
    bag = write_bag(tmp_path / "bag", stamped(1.0))
    (bag / "metadata.yaml").write_text("")
    with pytest.raises(CorruptInputError, match="Run ros2 bag reindex"):
        import_log("rosbag", bag, tmp_path / "log", topics=mapping)


def test_a_lone_compressed_file_is_named_with_its_remedy(tmp_path, mapping):
    folder = tmp_path / "bags"
    folder.mkdir()
    write_bag(folder / "a", stamped(1.0))
    packed = folder / "b.db3.zstd"
    packed.write_bytes(b"\x28\xb5\x2f\xfd")
    with pytest.raises(CorruptInputError, match=r"Run zstd -d \S+b\.db3\.zstd"):
        import_log("rosbag", packed, tmp_path / "log", topics=mapping)
    result = import_log("rosbag", folder, tmp_path / "log", topics=mapping, skip_corrupt=True)
    assert (result.episodes, list(result.skipped)) == (1, ["b.db3.zstd"])


def test_a_damaged_database_is_named_with_its_remedy(tmp_path, mapping):
    bag = write_bag(tmp_path / "bag", stamped(1.0), StoragePlugin.SQLITE3)
    (bag / "bag.db3").write_bytes(bytes(4096))
    with pytest.raises(CorruptInputError, match=r"Run sqlite3 \S+bag\.db3 \.recover"):
        import_log("rosbag", bag, tmp_path / "log", topics=mapping)
