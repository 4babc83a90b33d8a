"""Replay log in, a robot's topics out: a logged episode with its own stamps and timing."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

from rclpy.duration import Duration
from std_msgs.msg import Header

from wm_datasets.errors import LogError
from wm_datasets.log import LogReader
from wm_nodes.episodes.playback import Pacer, find_episode, transitions
from wm_nodes.episodes.runner import Transition
from wm_nodes.errors import user_errors
from wm_nodes.records import Plan
from wm_nodes.ros import messages, spin, topics
from wm_nodes.ros.clock import ClockPublisher
from wm_nodes.ros.node import ManagedNode, NodeParams
from wm_nodes.ros.parameters import param

RECORDED, PLAN = "recorded", "plan"
WATCH_S = 0.05
ACK = Duration(seconds=5.0)


@dataclass(frozen=True)
class ReplayParams(NodeParams):
    log: str = param("runs/log", "Folder of the replay log; it may be in use.")
    episode: int = param(-1, "Episode to play, from 0; -1: the newest, -2: the one before it.")
    rate: float = param(1.0, "Times as fast as it was; 0: without any pause.", low=0.0, high=1000.0)
    answers: tuple[str, ...] = param(
        (),
        "Wait for these: recorded (at the episode's start), plan (at each observation).",
        choices=(RECORDED, PLAN),
    )
    wait_s: float = param(2.0, "Begin when `step` has a subscriber, or after so long.", low=0.0)
    retry_s: float = param(0.5, "Publish an unanswered observation again after.", low=0.01)
    patience_s: float = param(30.0, "Go on without an answer after.", low=0.1)
    as_camera: bool = param(
        False, "Publish <camera>/image too, as a camera node that changes nothing would."
    )
    restamp: bool = param(False, "Stamp with the present time, not with the logged one.")


class ReplayNode(ManagedNode):
    """Stands where the robot would: nodes cannot tell it from one that ignores their plans."""

    NAME = "replay"
    PARAMS = ReplayParams

    def configure(self) -> None:
        p = self.params
        with user_errors(LogError, OSError):
            self._log = LogReader(p.log)
        self._rows = find_episode(self._log, p.episode)[1]
        self._left: Iterator[Transition] = transitions(self._log, p.episode)
        self._pacer = Pacer(p.rate)
        self._now: Transition | None = None  # shown
        self._after: Transition | None = None  # waits for its time
        self._missing: set[str] = set()  # answers that the newest observation waits for
        self._silent: set[str] = set()  # who did not answer is not waited for again
        self._shown = 0
        self._began_at = self._first_at = self._published_at = 0.0
        self._make_topics()

    def activate(self) -> None:
        spec = self._log.spec
        if spec.action is not None:
            # On the wire every step has a reward: 0 where the log does not know it.
            self._said.publish(messages.spec_to_msg(replace(spec, reward=True)))
        self.get_logger().info(f"playing {self._rows} observations of {spec.robot}, {spec.task}")
        self.diagnostics.ready = True
        self._began_at = time.perf_counter()
        self._watching = self.create_timer(WATCH_S, self._watch)
        self._timer = self.create_timer(WATCH_S, self._on_due)
        if self._after is None:
            self._timer.cancel()  # until something is due

    def deactivate(self) -> None:
        for timer in (self._watching, self._timer):
            self.destroy_timer(timer)

    def cleanup(self) -> None:
        if hasattr(self, "_log"):
            self._log.close()

    def _make_topics(self) -> None:
        spec, own = self._log.spec, [topics.IMAGE_RAW]
        own += [topics.IMAGE] * self.params.as_camera
        self._images = {c: [t.publisher(self, camera=c) for t in own] for c in spec.cameras}
        depths = [name for name, sensor in spec.sensors.items() if sensor.is_depth]
        self._depths = {d: topics.IMAGE_RAW.publisher(self, camera=d) for d in depths}
        self._clock_out = None if self.params.restamp else ClockPublisher(self)
        self._joints = topics.JOINT_STATES.publisher(self) if spec.proprio else None
        self._steps = topics.STEPS.publisher(self) if spec.action else None
        self._said = topics.SPEC.publisher(self)
        self.listen(topics.RECORDED, lambda msg: msg, self._on_recorded)
        self.listen(topics.PLAN, messages.plan_from_msg, self._on_plan)

    # Playing ------------------------------------------------------------------------------------

    def _watch(self) -> None:
        """Begin when there are subscribers; repeat what had no answer; go on without one."""
        now = time.perf_counter()
        if self._now is None:
            if not self._shown and (self._heard() or now - self._began_at >= self.params.wait_s):
                self._take_next()
                self._on_due()
        elif self._missing and now - self._first_at >= self.params.patience_s:
            names = " and ".join(sorted(self._missing))
            self.report_fault(
                "answer", f"no answer ({names}) for {now - self._first_at:.0f} s: going on"
            )
            self._silent |= self._missing
            self._missing = set()
            self._schedule()
        elif self._missing and now - self._published_at >= self.params.retry_s:
            self._publish(self._now)

    def _heard(self) -> bool:
        publishers = [self._steps] if self._steps else [p[0] for p in self._images.values()]
        return any(publisher.get_subscription_count() for publisher in publishers)

    def _show(self, transition: Transition) -> None:
        """Publish one observation for the first time."""
        self._now = self._restamped(transition) if self.params.restamp else transition
        self._shown += 1
        self.diagnostics.facts["observations"] = self._shown
        self._first_at = time.perf_counter()
        if self._shown == 1:
            self._pacer.wait_s(transition.step.stamp_ns, self._first_at)
        self._missing = self._wanted(self._now)
        self._publish(self._now)
        if not self._missing:
            self._schedule()

    def _publish(self, transition: Transition) -> None:
        started, stamp = time.perf_counter(), transition.step.stamp_ns
        if self._clock_out is not None:
            self._clock_out.publish(stamp)
        for camera, image in transition.images.items():
            msg = messages.image_to_msg(image, stamp, messages.optical_frame(camera))
            for publisher in self._images[camera]:
                publisher.publish(msg)
        for name, depth in transition.depths.items():
            frame = messages.optical_frame(name)
            self._depths[name].publish(messages.depth_to_msg(depth, stamp, frame))
        if self._joints is not None and self._log.spec.proprio is not None:
            names = self._log.spec.proprio.names
            self._joints.publish(messages.joints_to_msg(names, transition.proprio, stamp))
        if self._steps is not None:
            self._steps.publish(messages.step_to_msg(transition.step))
        self._published_at = time.perf_counter()
        self.diagnostics.record_latency(self._published_at - started)

    def _schedule(self) -> None:
        """This observation is answered: set the clock for the next, or end."""
        self._take_next()
        if self._after is None:
            self._end()
            return
        wait_s = self._pacer.wait_s(self._after.step.stamp_ns, time.perf_counter())
        self._timer.timer_period_ns = max(1, round(wait_s * 1e9))
        self._timer.reset()

    def _take_next(self) -> None:
        with user_errors(LogError):
            self._after = next(self._left, None)

    def _on_due(self) -> None:
        self._timer.cancel()
        if self._after is not None:
            transition, self._after = self._after, None
            self._show(transition)

    def _restamped(self, transition: Transition) -> Transition:
        """Move the stamp to now; it stays when the observation is published again."""
        stamp_ns = self.get_clock().now().nanoseconds
        return replace(transition, step=replace(transition.step, stamp_ns=stamp_ns))

    def _end(self) -> None:
        """Everything was shown: end when those who listen have it."""
        self._now = None
        self.diagnostics.facts["done"] = "true"
        own = [p for publishers in self._images.values() for p in publishers]
        own += self._depths.values()
        for publisher in (self._steps, self._joints, *own):
            if publisher is not None:
                publisher.wait_for_all_acked(ACK)
        self.get_logger().info(f"the episode is over: {self._shown} observations")
        self.finish()

    # Answers ------------------------------------------------------------------------------------

    def _wanted(self, transition: Transition) -> set[str]:
        """Nodes that must answer this observation; no planner at the last one or in video logs."""
        step, wanted = transition.step, set(self.params.answers) - self._silent
        if self._steps is None or not step.is_first:
            wanted.discard(RECORDED)
        if self._steps is None or step.is_last:
            wanted.discard(PLAN)
        return wanted

    def _on_recorded(self, msg: Header) -> None:
        self._answered(RECORDED, messages.from_time(msg.stamp))

    def _on_plan(self, plan: Plan) -> None:
        self._answered(PLAN, plan.stamp_ns)

    def _answered(self, who: str, stamp_ns: int) -> None:
        """Go on when the last answer to the newest observation is there."""
        if self._now is None or stamp_ns != self._now.step.stamp_ns or who not in self._missing:
            return
        self._missing.discard(who)
        if not self._missing:
            self._schedule()


def main() -> None:
    spin.main(ReplayNode)


if __name__ == "__main__":
    main()
