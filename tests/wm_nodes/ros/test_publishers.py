"""Publishers of a topic: one live process; those that remain of killed ones do not count."""

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
    """The identity of a process of this computer, in a launch or started by hand."""
    began, _, name = run.partition("_")
    own = process_identity.own()
    return ProcessIdentity(
        started_ns or int(began, 16), name or BY_HAND, own.host, pid, process_identity._ticks(pid)
    )


@contextmanager
def node_of_process(name: str, owner: ProcessIdentity | None) -> Iterator[Node]:
    """A node `/one/<name>` of another DDS participant, with the identity of this process."""
    arguments = ["x"] if owner is None else ["x", "--ros-args", "--enclave", owner.enclave]
    context = rclpy.Context()
    rclpy.init(args=arguments, context=context)
    node = Node(name, namespace="/one", context=context)
    try:
        yield node
    finally:
        node.destroy_node()
        rclpy.try_shutdown(context=context)


class TopicSubscriber:
    """A node that gives a verdict on each message of TOPIC; `verdicts` has (text, verdict)."""

    def __init__(self, stack: ExitStack, owner: ProcessIdentity | None) -> None:
        self.node = stack.enter_context(node_of_process("subscriber", owner))
        self.publishers = Publishers(self.node, owner)
        self.verdicts: list[tuple[str, Verdict]] = []
        self.executor = SingleThreadedExecutor(context=self.node.context)
        self.executor.add_node(self.node)
        self.node.create_subscription(String, TOPIC, self._on_message, 50)

    def _on_message(self, msg: String, info: object) -> None:
        self.verdicts.append((msg.data, self.publishers.verdict(TOPIC, gid_of(info))))

    def until(self, condition: Callable[[], object]) -> None:
        end = time.monotonic() + 60.0
        while not condition():
            assert time.monotonic() < end, self.verdicts
            self.executor.spin_once(timeout_sec=0.02)

    def verdict(self, publisher: object, text: str) -> Verdict:
        """Publish until the verdict on the message is known."""
        self.until(lambda: publisher.get_subscription_count())
        self.verdicts.clear()

        def decided() -> bool:
            publisher.publish(String(data=text))
            self.executor.spin_once(timeout_sec=0.02)
            return any(t == text and v is not Verdict.UNKNOWN for t, v in self.verdicts)

        self.until(decided)
        return next(v for t, v in self.verdicts if t == text and v is not Verdict.UNKNOWN)

    def discovered(self, count: int) -> None:
        self.until(lambda: self.node.count_publishers(TOPIC) == count)

    def conflicts(self, count: int) -> list:
        self.until(lambda: len(self.publishers.conflicts((TOPIC,))) == count)
        return self.publishers.conflicts((TOPIC,))


def test_an_identity_survives_the_enclave_and_detects_live_processes(sleeper) -> None:
    own = process_identity.own()
    assert ProcessIdentity.parse(own.enclave) == own and own.alive and own.local
    assert ProcessIdentity.parse("/") is None and ProcessIdentity.parse("/wm/x") is None
    other = identity(sleeper.pid, RUN_A)
    assert ProcessIdentity.parse(other.enclave) == other and other.alive
    assert not replace(other, ticks=other.ticks + 1).alive  # its process id was used again
    assert replace(other, host="elsewhere").alive
    sleeper.kill()  # not waited for: a zombie has ended
    end = time.monotonic() + 10
    while other.alive:
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_users_enclave_and_sros2_are_not_changed(monkeypatch) -> None:
    arguments = ["x", "--ros-args", "-e", "/mine"]
    assert process_identity.with_enclave(arguments) == arguments
    assert process_identity.with_enclave(["x", "y"])[-1] == "y"
    monkeypatch.setenv("ROS_SECURITY_ENABLE", "true")
    assert process_identity.with_enclave(["x"]) == ["x"]
    monkeypatch.delenv("ROS_SECURITY_ENABLE")
    monkeypatch.setenv(process_identity.RUN, process_identity.new_run())
    assert process_identity.own().launched
    monkeypatch.setenv(process_identity.RUN, "../../x")
    assert not process_identity.own().launched


def test_another_launch_is_refused_whichever_was_first(sleeper) -> None:
    for own_run, other_run in ((RUN_A, RUN_B), (RUN_B, RUN_A)):
        with ExitStack() as stack:
            subscriber = TopicSubscriber(stack, identity(sleeper.pid, own_run))
            other_node = stack.enter_context(node_of_process("robot", identity(1, other_run)))
            other_pub = other_node.create_publisher(String, TOPIC, 10)
            assert subscriber.verdict(other_pub, "theirs") is Verdict.REFUSE  # the only one so far
            own_node = stack.enter_context(node_of_process("robot", identity(sleeper.pid, own_run)))
            own_pub = own_node.create_publisher(String, TOPIC, 10)
            subscriber.discovered(2)
            assert subscriber.verdict(other_pub, "still theirs") is Verdict.REFUSE
            (conflict,) = subscriber.conflicts(1)
            assert conflict.yields == (own_run == RUN_B) and not conflict.stays
            assert "process 1)" in conflict.text and "ns:=" in conflict.text
            del own_pub


def test_a_killed_node_that_is_started_again_is_no_second_graph(sleeper) -> None:
    with ExitStack() as stack:
        subscriber = TopicSubscriber(stack, identity(1, RUN_A))
        old_node = stack.enter_context(node_of_process("robot", identity(sleeper.pid, RUN_A)))
        old_pub = old_node.create_publisher(String, TOPIC, 10)
        assert subscriber.verdict(old_pub, "old") is Verdict.USE
        new_node = stack.enter_context(node_of_process("robot", identity(1, RUN_A)))
        new_pub = new_node.create_publisher(String, TOPIC, 10)
        subscriber.discovered(2)
        assert subscriber.verdict(new_pub, "both run") is Verdict.REFUSE
        sleeper.kill()
        sleeper.wait()
        subscriber.conflicts(0)
        subscriber.until(
            lambda: subscriber.verdict(new_pub, "the old one is a ghost") is Verdict.USE
        )


def test_of_two_graphs_started_by_hand_the_first_continues(sleeper) -> None:
    first, second = identity(sleeper.pid, "", 1000), identity(1, "", 2000)
    for owner, other, yields in ((first, second, False), (second, first, True)):
        with ExitStack() as stack:
            node = stack.enter_context(node_of_process("robot", owner))
            node.create_publisher(String, TOPIC, 10)
            publishers = Publishers(node, owner)
            assert publishers.conflicts((TOPIC,)) == []
            rival = stack.enter_context(node_of_process("robot", other))
            rival.create_publisher(String, TOPIC, 10)
            end = time.monotonic() + 30
            while len(conflicts := publishers.conflicts((TOPIC,))) < 2:  # name and topic
                assert time.monotonic() < end
                time.sleep(0.02)
            assert {conflict.yields for conflict in conflicts} == {yields}


def test_of_other_programs_the_one_that_publishes_is_used(sleeper, monkeypatch) -> None:
    silent_s = publishers.SENDING_S
    monkeypatch.setattr(publishers, "SENDING_S", 600.0)
    with ExitStack() as stack:
        subscriber = TopicSubscriber(stack, identity(1, RUN_A))
        first_pub = stack.enter_context(node_of_process("planner", None)).create_publisher(
            String, TOPIC, 10
        )
        second_pub = stack.enter_context(node_of_process("tool", None)).create_publisher(
            String, TOPIC, 10
        )
        assert subscriber.verdict(first_pub, "one") is Verdict.USE
        assert subscriber.verdict(second_pub, "two") is Verdict.REFUSE  # both publish
        assert all(conflict.stays for conflict in subscriber.conflicts(2))
        monkeypatch.setattr(publishers, "SENDING_S", silent_s)
        time.sleep(1.05 * silent_s)  # the first no longer publishes
        assert subscriber.verdict(second_pub, "two alone") is Verdict.USE
        assert subscriber.conflicts(0) == []


class Listener(ManagedNode):
    NAME = "listener"


class StubPublishers:
    """Verdicts that the test sets; an unknown publisher is used when the wait for it is over."""

    def __init__(self) -> None:
        self.known: set[bytes] = set()

    def verdict(self, topic: str, gid: bytes, *, patient: bool = True) -> Verdict:
        return Verdict.USE if gid in self.known or not patient else Verdict.UNKNOWN


class GatedNode:
    """A node with such verdicts; `handled` has the messages in the order of their handling."""

    def __init__(self, graph, monkeypatch) -> None:
        monkeypatch.setattr(publishers, "gid_of", lambda info: info)
        monkeypatch.setattr(graph_conflicts, "gid_of", lambda info: info)
        self.node = graph.add(Listener)
        self.conflicts, self.stub = self.node.graph_conflicts, StubPublishers()
        self.conflicts._publishers = self.stub
        self.handled: list[str] = []
        self.before_handling = lambda: None  # called before the next message is handled

    def deliver(self, text: str, topic: str = "/step", gid: bytes = b"a") -> None:
        """Deliver a message, as the callback of a subscription does."""
        self.conflicts.release()
        if self.conflicts.admits(topic, topic, self.handle, text, gid):
            self.handle(text)

    def handle(self, text: str) -> None:
        before_handling, self.before_handling = self.before_handling, lambda: None
        before_handling()
        self.handled.append(text)


def test_messages_of_a_publisher_that_becomes_known_keep_their_order(graph, monkeypatch) -> None:
    gated = GatedNode(graph, monkeypatch)
    gated.deliver("m1")
    gated.stub.known.add(b"a")
    assert not gated.conflicts.admits(
        "/step", "step", gated.handle, "m2", b"a"
    )  # known since m1 waits
    gated.deliver("m3")
    assert gated.handled == ["m1", "m2", "m3"]


def test_a_message_received_while_another_one_is_handled_is_neither_lost_nor_doubled(
    graph, monkeypatch
) -> None:
    gated = GatedNode(graph, monkeypatch)
    gated.deliver("s1")
    gated.stub.known.add(b"a")
    gated.before_handling = lambda: gated.deliver(
        "i1", "/image", b"b"
    )  # of a publisher not known yet
    gated.conflicts.release()
    assert gated.handled == ["s1"]
    gated.stub.known.add(b"b")
    gated.conflicts.release()
    assert gated.handled == ["s1", "i1"]


def test_a_message_that_waited_long_is_used_once_its_publisher_is_known(graph, monkeypatch) -> None:
    monkeypatch.setattr(graph_conflicts, "HELD_S", 0.0)
    gated = GatedNode(graph, monkeypatch)
    gated.deliver("spec", "/spec")
    time.sleep(0.01)
    gated.conflicts.release()
    assert gated.handled == ["spec"] and not gated.node.diagnostics.drops


def test_many_messages_of_one_topic_do_not_displace_those_of_another(graph, monkeypatch) -> None:
    gated = GatedNode(graph, monkeypatch)
    for number in range(graph_conflicts.HELD + 1):
        gated.deliver(f"image {number}", "/image")
    gated.deliver("spec", "/spec")
    gated.stub.known.add(b"a")
    gated.conflicts.release()
    assert len(gated.handled) == graph_conflicts.HELD + 1 and gated.handled[-1] == "spec"
    assert gated.node.diagnostics.drops == {"/image/unknown": 1}


def test_a_publisher_that_never_sends_ends_no_node(sleeper) -> None:
    with ExitStack() as stack:
        own = identity(sleeper.pid, RUN_A)
        node = stack.enter_context(node_of_process("scripted_policy", own))
        plans = node.create_publisher(String, TOPIC, 10)
        idle_node = stack.enter_context(node_of_process("witness", None))
        idle_node.create_publisher(String, TOPIC, 10)
        end = time.monotonic() + 60.0
        publishers = Publishers(node, own)
        while not (conflicts := publishers.conflicts((TOPIC,))):
            assert time.monotonic() < end
            time.sleep(0.05)
        assert "witness" in conflicts[0].text
        assert not any(conflict.stays or conflict.yields for conflict in conflicts)
        assert plans.topic_name == TOPIC
