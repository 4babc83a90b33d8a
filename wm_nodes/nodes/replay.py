"""Publishes a logged episode on a robot's topics, with its own stamps and timing."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

from rclpy.duration import Duration
from std_msgs.msg import Header

from wm_datasets.errors import LogError
from wm_datasets.log import LogReader
from wm_nodes.episodes.playback import Pacer, find_episode, transitions
from wm_nodes.errors import user_errors
from wm_nodes.records import Plan, Transition
from wm_nodes.ros import messages, spin, topics
from wm_nodes.ros.clock import ClockPublisher
from wm_nodes.ros.node import ManagedNode, NodeParams
from wm_nodes.ros.observations import ObservationPublisher
from wm_nodes.ros.parameters import param

RECORDED, PLAN = "recorded", "plan"
WATCH_S = 0.05
ACK = Duration(seconds=5.0)


@dataclass(frozen=True)
class ReplayParams(NodeParams):
    log: str = param("runs/log", "Folder of the replay log, which may still be written.")
    episode: int = param(-1, "Number of the episode, from 0; -1: the newest, -2: the one before.")
    rate: float = param(
        1.0, "Playback speed as a factor; 0: as fast as possible.", low=0.0, high=1000.0
    )
    answers: tuple[str, ...] = param(
        (),
        "Messages to wait for: recorded (after the first observation), plan (after each one).",
        choices=(RECORDED, PLAN),
    )
    wait_s: float = param(
        2.0, "Longest wait for a subscriber of `step` before the episode starts [s].", low=0.0
    )
    retry_s: float = param(
        0.5, "Publish an unanswered observation again after this time [s].", low=0.01
    )
    patience_s: float = param(30.0, "Continue without an answer after this time [s].", low=0.1)
    as_camera: bool = param(
        False, "Also publish <camera>/image, as a camera node without crop and resize does."
    )
    restamp: bool = param(False, "Stamp messages with the current time instead of the logged one.")


class ReplayNode(ManagedNode[ReplayParams]):
    """Replaces the robot node: to other nodes it is a robot that ignores their plans."""

    NAME = "replay"

    def configure(self) -> None:
        p = self.params
        with user_errors(LogError, OSError):
            self._log = LogReader(p.log)
        self._remaining: Iterator[Transition] = transitions(self._log, p.episode)
        self._pacer = Pacer(p.rate)
        self._newest: Transition | None = None  # published, not answered yet
        self._next: Transition | None = None  # published when it is due
        self._missing: set[str] = set()  # answers that the newest observation waits for
        self._absent: set[str] = set()  # answers that are not waited for any more
        self._count = 0  # observations published
        self._started_s = self._first_s = self._published_s = 0.0
        self._make_topics()

    def activate(self) -> None:
        spec = self._log.spec
        if spec.action is not None:
            # On topics every step has a reward: 0 where the log does not know it.
            self._spec_pub.publish(messages.spec_to_msg(replace(spec, reward=True)))
        rows = find_episode(self._log, self.params.episode)[1]
        self.get_logger().info(f"playing {rows} observations of {spec.robot}, {spec.task}")
        self.diagnostics.ready = True
        self._started_s = time.perf_counter()
        self._watch_timer = self.create_timer(WATCH_S, self._watch)
        self._timer = self.create_timer(WATCH_S, self._on_due)
        if self._next is None:
            self._timer.cancel()  # until an observation is due

    def deactivate(self) -> None:
        for timer in (self._watch_timer, self._timer):
            self.destroy_timer(timer)

    def cleanup(self) -> None:
        if hasattr(self, "_log"):
            self._log.close()

    def _make_topics(self) -> None:
        spec = self._log.spec
        depths = [name for name, sensor in spec.sensors.items() if sensor.is_depth]
        self._observations = ObservationPublisher(
            self,
            spec.cameras,
            depths,
            spec.proprio.names if spec.proprio else None,
            steps=spec.action is not None,
            as_camera=self.params.as_camera,
            clock=None if self.params.restamp else ClockPublisher(self),
        )
        self._spec_pub = topics.SPEC.publisher(self)
        self.listen(topics.RECORDED, lambda msg: msg, self._on_recorded)
        self.listen(topics.PLAN, messages.plan_from_msg, self._on_plan)

    # Playing ------------------------------------------------------------------------------------

    def _watch(self) -> None:
        """Start with the first subscriber; repeat an unanswered observation; continue without."""
        now = time.perf_counter()
        if self._newest is None:
            self._start_when_ready(now)
        elif self._missing and now - self._first_s >= self.params.patience_s:
            names, waited_s = " and ".join(sorted(self._missing)), now - self._first_s
            self.report_fault("answer", f"no answer ({names}) for {waited_s:.0f} s: continuing")
            self._absent |= self._missing
            self._missing = set()
            self._schedule()
        elif self._missing and now - self._published_s >= self.params.retry_s:
            self._publish(self._newest)

    def _start_when_ready(self, now: float) -> None:
        waited = now - self._started_s >= self.params.wait_s
        if not self._count and (waited or self._observations.has_subscriber):
            self._read_next()
            self._on_due()

    def _publish_new(self, transition: Transition) -> None:
        """Publish one observation for the first time."""
        self._newest = self._restamped(transition) if self.params.restamp else transition
        self._count += 1
        self.diagnostics.facts["observations"] = self._count
        self._first_s = time.perf_counter()
        if self._count == 1:
            self._pacer.wait_s(transition.step.stamp_ns, self._first_s)
        self._missing = self._expected(self._newest)
        self._publish(self._newest)
        if not self._missing:
            self._schedule()

    def _publish(self, transition: Transition) -> None:
        started = time.perf_counter()
        self._observations.publish(transition)
        self._published_s = time.perf_counter()
        self.diagnostics.record_latency(self._published_s - started)

    def _schedule(self) -> None:
        """The newest observation is answered: set the timer for the next one, or end."""
        self._read_next()
        if self._next is None:
            self._end()
            return
        wait_s = self._pacer.wait_s(self._next.step.stamp_ns, time.perf_counter())
        self._timer.timer_period_ns = max(1, round(wait_s * 1e9))
        self._timer.reset()

    def _read_next(self) -> None:
        with user_errors(LogError):
            self._next = next(self._remaining, None)

    def _on_due(self) -> None:
        self._timer.cancel()
        if self._next is not None:
            transition, self._next = self._next, None
            self._publish_new(transition)

    def _restamped(self, transition: Transition) -> Transition:
        """Set the stamp to the current time; repetitions keep it."""
        stamp_ns = self.get_clock().now().nanoseconds
        return replace(transition, step=replace(transition.step, stamp_ns=stamp_ns))

    def _end(self) -> None:
        """The last observation is answered: end when subscribers have everything."""
        self._newest = None
        self.diagnostics.facts["done"] = "true"
        self._observations.wait_for_acknowledgements(ACK)
        self.get_logger().info(f"the episode is over: {self._count} observations")
        self.finish()

    # Answers ------------------------------------------------------------------------------------

    def _expected(self, transition: Transition) -> set[str]:
        """Return the answers to wait for: no plan for the last one, none at all in video logs."""
        step, expected = transition.step, set(self.params.answers) - self._absent
        if self._log.spec.action is None or not step.is_first:
            expected.discard(RECORDED)
        if self._log.spec.action is None or step.is_last:
            expected.discard(PLAN)
        return expected

    def _on_recorded(self, msg: Header) -> None:
        self._answered(RECORDED, messages.from_time(msg.stamp))

    def _on_plan(self, plan: Plan) -> None:
        self._answered(PLAN, plan.stamp_ns)

    def _answered(self, answer: str, stamp_ns: int) -> None:
        """Continue when the newest observation has all of its answers."""
        newest = self._newest
        if newest is None or stamp_ns != newest.step.stamp_ns or answer not in self._missing:
            return
        self._missing.discard(answer)
        if not self._missing:
            self._schedule()


def main() -> None:
    spin.main(ReplayNode)


if __name__ == "__main__":
    main()
