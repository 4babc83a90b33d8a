"""What both loops of simulators share: the order of episodes, pause and emergency stop."""

from __future__ import annotations

from abc import abstractmethod

from wm_nodes.control.base import Control, ControlOutput
from wm_nodes.episodes.runner import EpisodeRunner
from wm_nodes.records import Answer, Origin, Transition, Vector


class SimulatorControl(Control):
    """A simulator that moves only when `execute` is called. All calls from one thread."""

    def __init__(self, runner: EpisodeRunner, output: ControlOutput) -> None:
        self._runner, self._output = runner, output
        self._running = self._paused = self._stopped = False

    def start(self) -> None:
        self._running = True
        self._begin_episode()

    def stop(self) -> None:
        self._running = False
        self._runner.robot.stop()

    def request(self, name: str, value: object = None) -> Answer:
        if name == "pause":
            return self._pause(paused=True)
        if name == "resume":
            return self._pause(paused=False)
        if name == "reset":
            return self._reset()
        return Answer(False, f"{name}: only an arm has this")

    def estop(self, *, on: bool) -> Answer:
        self._stopped = on
        self._discard_plans(emergency=on)
        if not on:
            self._output.clear_fault("estop", "the emergency stop is cleared")
            return Answer(True, "cleared")
        self._runner.robot.stop()
        text = "emergency stop: nothing moves until it is cleared"
        self._output.report_fault("estop", text, error=True)
        return Answer(True, "stopped")

    @property
    def _held(self) -> bool:
        """Has the operator paused or stopped the simulator?"""
        return self._paused or self._stopped

    def _pause(self, *, paused: bool) -> Answer:
        self._paused = paused
        self._discard_plans(emergency=False)
        return Answer(True, "paused" if paused else "resumed")

    def _reset(self) -> Answer:
        if not self._running or self._stopped:
            return Answer(False, "not active, or stopped: nothing was reset")
        self._runner.abort()
        self._begin_episode()
        return Answer(True, "the next episode has begun")

    def _begin_episode(self) -> None:
        """Begin the next episode, or end the run."""
        self._output.save_counts()
        first = self._runner.begin()
        if first is None:
            self._running = False
            self._runner.robot.stop()
            self._output.end_run()
            return
        self._on_episode(first)
        self._publish(first)

    def _execute(self, action: Vector, origin: Origin) -> None:
        """Execute one action (A,) for one agent step; after the last one, begin an episode."""
        transition = self._runner.execute(action, origin)
        self._publish(transition)
        if transition.step.is_last:
            self._begin_episode()

    @abstractmethod
    def _publish(self, transition: Transition) -> None:
        """Publish a new observation."""

    def _on_episode(self, first: Transition) -> None:
        """An episode begins with this observation, which is not published yet."""

    def _discard_plans(self, *, emergency: bool) -> None:
        """The operator has paused, resumed, stopped (`emergency`) or cleared."""
