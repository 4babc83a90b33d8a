"""Who publishes a topic: one living process; ghosts of killed ones do not count, others do."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace

import pytest

pytest.importorskip("rclpy")

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from std_msgs.msg import String

from wm_nodes.graphs.launch import process_identity
from wm_nodes.graphs.launch.process_identity import BY_HAND, ProcessIdentity
from wm_nodes.ros import graph_conflicts, publishers
from wm_nodes.ros.node import ManagedNode
from wm_nodes.ros.publishers import Publishers, Verdict, gid_of

TOPIC = "/one/step"
RUN_A, RUN_B = "1_aa", "2_bb"


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    yield process
    process.kill()
    process.wait()


def identity(pid: int, run: str = "", started_ns: int = 0) -> ProcessIdentity:
    """Of a process of this computer, in a launch or started by hand."""
    began, _, name = run.partition("_")
    own = process_identity.own()
    return ProcessIdentity(
        started_ns or int(began, 16), name or BY_HAND, own.host, pid, process_identity._ticks(pid)
    )


@contextmanager
def process(name: str, who: ProcessIdentity | None) -> Iterator[Node]:
    """A node `/one/<name>` of another DDS participant, which says that it is this process."""
    words = ["x"] if who is None else ["x", "--ros-args", "--enclave", who.enclave]
    context = rclpy.Context()
    rclpy.init(args=words, context=context)
    node = Node(name, namespace="/one", context=context)
    try:
        yield node
    finally:
        node.destroy_node()
        rclpy.try_shutdown(context=context)


class Hearer:
    """A node that decides about each message of TOPIC; `said` has (text, verdict)."""

    def __init__(self, stack: ExitStack, who: ProcessIdentity | None) -> None:
        self.node = stack.enter_context(process("hearer", who))
        self.publishers = Publishers(self.node, who)
        self.said: list[tuple[str, Verdict]] = []
        self.executor = SingleThreadedExecutor(context=self.node.context)
        self.executor.add_node(self.node)
        self.node.create_subscription(String, TOPIC, self._hear, 50)

    def _hear(self, msg: String, info: object) -> None:
        self.said.append((msg.data, self.publishers.verdict(TOPIC, gid_of(info))))

    def until(self, condition: Callable[[], object]) -> None:
        end = time.monotonic() + 60.0
        while not condition():
            assert time.monotonic() < end, self.said
            self.executor.spin_once(timeout_sec=0.02)

    def verdict(self, publisher: object, text: str) -> Verdict:
        """Publish until the message is decided about."""
        self.until(lambda: publisher.get_subscription_count())
        self.said.clear()

        def decided() -> bool:
            publisher.publish(String(data=text))
            self.executor.spin_once(timeout_sec=0.02)
            return any(t == text and v is not Verdict.UNKNOWN for t, v in self.said)

        self.until(decided)
        return next(v for t, v in self.said if t == text and v is not Verdict.UNKNOWN)

    def discovered(self, count: int) -> None:
        self.until(lambda: self.node.count_publishers(TOPIC) == count)

    def conflicts(self, count: int) -> list:
        self.until(lambda: len(self.publishers.conflicts((TOPIC,))) == count)
        return self.publishers.conflicts((TOPIC,))


def test_an_identity_survives_the_enclave_and_knows_the_living(sleeper) -> None:
    own = process_identity.own()
    assert ProcessIdentity.parse(own.enclave) == own and own.alive and own.local
    assert ProcessIdentity.parse("/") is None and ProcessIdentity.parse("/wm/x") is None
    other = identity(sleeper.pid, RUN_A)
    assert ProcessIdentity.parse(other.enclave) == other and other.alive
    assert not replace(other, ticks=other.ticks + 1).alive  # its number was given again
    assert replace(other, host="elsewhere").alive
    sleeper.kill()  # not waited for: a zombie is dead
    end = time.monotonic() + 10
    while other.alive:
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_users_enclave_and_sros2_are_left_alone(monkeypatch) -> None:
    given = ["x", "--ros-args", "-e", "/mine"]
    assert process_identity.with_enclave(given) == given
    assert process_identity.with_enclave(["x", "y"])[-1] == "y"
    monkeypatch.setenv("ROS_SECURITY_ENABLE", "true")
    assert process_identity.with_enclave(["x"]) == ["x"]
    monkeypatch.delenv("ROS_SECURITY_ENABLE")
    monkeypatch.setenv(process_identity.RUN, process_identity.new_run())
    assert process_identity.own().launched
    monkeypatch.setenv(process_identity.RUN, "../../x")
    assert not process_identity.own().launched


def test_another_launch_is_refused_whichever_was_first(sleeper) -> None:
    for mine, other in ((RUN_A, RUN_B), (RUN_B, RUN_A)):
        with ExitStack() as stack:
            hearer = Hearer(stack, identity(sleeper.pid, mine))
            theirs = stack.enter_context(process("robot", identity(1, other)))
            foreign = theirs.create_publisher(String, TOPIC, 10)
            assert hearer.verdict(foreign, "theirs") is Verdict.REFUSE  # the only one so far
            ours = stack.enter_context(process("robot", identity(sleeper.pid, mine)))
            own = ours.create_publisher(String, TOPIC, 10)
            hearer.discovered(2)
            assert hearer.verdict(foreign, "still theirs") is Verdict.REFUSE
            (conflict,) = hearer.conflicts(1)
            assert conflict.yields == (mine == RUN_B) and not conflict.stays
            assert "process 1)" in conflict.text and "ns:=" in conflict.text
            del own


def test_a_killed_node_that_is_started_again_is_no_second_graph(sleeper) -> None:
    with ExitStack() as stack:
        hearer = Hearer(stack, identity(1, RUN_A))
        before = stack.enter_context(process("robot", identity(sleeper.pid, RUN_A)))
        old = before.create_publisher(String, TOPIC, 10)
        assert hearer.verdict(old, "old") is Verdict.USE
        again = stack.enter_context(process("robot", identity(1, RUN_A)))
        new = again.create_publisher(String, TOPIC, 10)
        hearer.discovered(2)
        assert hearer.verdict(new, "both live") is Verdict.REFUSE
        sleeper.kill()
        sleeper.wait()
        hearer.conflicts(0)
        hearer.until(lambda: hearer.verdict(new, "the old one is a ghost") is Verdict.USE)


def test_of_two_started_by_hand_the_first_goes_on(sleeper) -> None:
    first, second = identity(sleeper.pid, "", 1000), identity(1, "", 2000)
    for who, other, yields in ((first, second, False), (second, first, True)):
        with ExitStack() as stack:
            node = stack.enter_context(process("robot", who))
            node.create_publisher(String, TOPIC, 10)
            publishers = Publishers(node, who)
            assert publishers.conflicts((TOPIC,)) == []
            rival = stack.enter_context(process("robot", other))
            rival.create_publisher(String, TOPIC, 10)
            end = time.monotonic() + 30
            while len(found := publishers.conflicts((TOPIC,))) < 2:  # name and topic
                assert time.monotonic() < end
                time.sleep(0.02)
            assert {conflict.yields for conflict in found} == {yields}


def test_of_other_programs_the_one_that_speaks_is_heard(sleeper, monkeypatch) -> None:
    silent_s = publishers.SENDING_S
    monkeypatch.setattr(publishers, "SENDING_S", 600.0)
    with ExitStack() as stack:
        hearer = Hearer(stack, identity(1, RUN_A))
        one = stack.enter_context(process("planner", None)).create_publisher(String, TOPIC, 10)
        two = stack.enter_context(process("tool", None)).create_publisher(String, TOPIC, 10)
        assert hearer.verdict(one, "one") is Verdict.USE
        assert hearer.verdict(two, "two") is Verdict.REFUSE  # both speak
        assert all(conflict.stays for conflict in hearer.conflicts(2))
        monkeypatch.setattr(publishers, "SENDING_S", silent_s)
        time.sleep(1.05 * silent_s)  # the first is silent: ended, or a ghost
        assert hearer.verdict(two, "two alone") is Verdict.USE
        assert hearer.conflicts(0) == []


class Listener(ManagedNode):
    NAME = "listener"


class Judge:
    """Verdicts that the test decides; a publisher without a name is used once patience ends."""

    def __init__(self) -> None:
        self.known: set[bytes] = set()

    def verdict(self, topic: str, gid: bytes, *, patient: bool = True) -> Verdict:
        return Verdict.USE if gid in self.known or not patient else Verdict.UNKNOWN


class Door:
    """A node with such verdicts; `used` has the messages in the order in which they were used."""

    def __init__(self, graph, monkeypatch) -> None:
        monkeypatch.setattr(publishers, "gid_of", lambda info: info)
        monkeypatch.setattr(graph_conflicts, "gid_of", lambda info: info)
        self.node = graph.add(Listener)
        self.conflicts, self.judge = self.node.graph_conflicts, Judge()
        self.conflicts._publishers = self.judge
        self.used: list[str] = []
        self.then = lambda: None  # what handling the next message does first

    def give(self, text: str, topic: str = "/step", gid: bytes = b"a") -> None:
        """Deliver a message, as the callback of a subscription does."""
        self.conflicts.release()
        if self.conflicts.admits(topic, topic, self.use, text, gid):
            self.use(text)

    def use(self, text: str) -> None:
        then, self.then = self.then, lambda: None
        then()
        self.used.append(text)


def test_messages_of_a_publisher_that_becomes_known_keep_their_order(graph, monkeypatch) -> None:
    door = Door(graph, monkeypatch)
    door.give("m1")
    door.judge.known.add(b"a")
    assert not door.conflicts.admits("/step", "step", door.use, "m2", b"a")  # known since m1 waits
    door.give("m3")
    assert door.used == ["m1", "m2", "m3"]


def test_a_message_received_while_another_one_is_handled_is_neither_lost_nor_doubled(
    graph, monkeypatch
) -> None:
    door = Door(graph, monkeypatch)
    door.give("s1")
    door.judge.known.add(b"a")
    door.then = lambda: door.give("i1", "/image", b"b")  # of a publisher not known yet
    door.conflicts.release()
    assert door.used == ["s1"]
    door.judge.known.add(b"b")
    door.conflicts.release()
    assert door.used == ["s1", "i1"]


def test_a_message_that_waited_long_is_used_once_its_publisher_is_known(graph, monkeypatch) -> None:
    monkeypatch.setattr(graph_conflicts, "HELD_S", 0.0)
    door = Door(graph, monkeypatch)
    door.give("spec", "/spec")
    time.sleep(0.01)
    door.conflicts.release()
    assert door.used == ["spec"] and not door.node.diagnostics.drops


def test_many_messages_of_one_topic_do_not_displace_those_of_another(graph, monkeypatch) -> None:
    door = Door(graph, monkeypatch)
    for number in range(graph_conflicts.HELD + 1):
        door.give(f"image {number}", "/image")
    door.give("spec", "/spec")
    door.judge.known.add(b"a")
    door.conflicts.release()
    assert len(door.used) == graph_conflicts.HELD + 1 and door.used[-1] == "spec"
    assert door.node.diagnostics.drops == {"/image/unknown": 1}


def test_a_publisher_that_never_sends_ends_no_node(sleeper) -> None:
    with ExitStack() as stack:
        me = identity(sleeper.pid, RUN_A)
        player = stack.enter_context(process("scripted_policy", me))
        plans = player.create_publisher(String, TOPIC, 10)
        silent = stack.enter_context(process("witness", None))
        silent.create_publisher(String, TOPIC, 10)
        end = time.monotonic() + 60.0
        found = Publishers(player, me)
        while not (conflicts := found.conflicts((TOPIC,))):
            assert time.monotonic() < end
            time.sleep(0.05)
        assert "witness" in conflicts[0].text
        assert not any(conflict.stays or conflict.yields for conflict in conflicts)
        assert plans.topic_name == TOPIC
