"""An arm as a Robot: actions in, observations out; `ArmMotion` moves it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from wm_nodes.robots.arm import diagnostics
from wm_nodes.robots.arm.actions import ArmActions, PathPoint
from wm_nodes.robots.arm.agent_step import SIGNALS, AgentStep, Outcome
from wm_nodes.robots.arm.config.arm_config import ArmConfig
from wm_nodes.robots.arm.driver import Driver
from wm_nodes.robots.arm.motion import ArmMotion
from wm_nodes.robots.arm.observations import ArmObservations
from wm_nodes.robots.arm.safety.supervisor import Supervisor
from wm_nodes.robots.robot import (
    Observation,
    RealtimeRobot,
    RobotError,
    RobotSpec,
    Vector,
    checked_action,
)
from wm_nodes.robots.seeds import episode_seed

HOME_S, STOP_S = 60.0, 10.0  # in simulated time: to reach home, to come to rest


@dataclass
class _Episodes:
    """Count and state of the episodes. limit: agent steps of one."""

    seed: int
    limit: int
    count: int = 0
    steps: int = 0  # of the present one
    ending: bool = False
    prepared: int | None = None  # seed of the episode that is being prepared

    def next_seed(self) -> int:
        seed = episode_seed(self.seed, self.count)
        self.count += 1
        return seed

    @property
    def at_end(self) -> bool:
        return self.ending or self.steps >= self.limit


class Arm(RealtimeRobot):
    """One arm. An agent step lasts `action_repeat` control periods; time passes at its driver.

    In simulated time `reset` and `act` execute all control periods themselves. The class is long
    because `RealtimeRobot` has many methods; each is short and calls a part.
    """

    def __init__(
        self,
        driver: Driver,
        config: ArmConfig,
        *,
        task: str = "reach",
        seed: int = 0,
        action_repeat: int = 5,
        time_limit: int = 100,
        dry_run: bool = False,
        home: bool = True,
    ) -> None:
        self.config, self._driver, self._home = config, driver, home
        self.motion = ArmMotion(driver, config, dry_run=dry_run)
        self._repeat = action_repeat
        step_s = self.period_s * action_repeat
        self.actions = ArmActions(config, self.motion.kinematics, task)
        self.observations = ArmObservations(config, driver, self.motion.kinematics, step_s)
        self._episodes = _Episodes(seed, time_limit)
        self._newest: Observation | None = None
        self._closed = False
        self._step = self._new_step()
        self._outcome: Outcome | None = None  # of a complete agent step
        self.spec = RobotSpec(
            name=config.robot,
            task=task,
            control_period_s=step_s,
            cameras=self.observations.cameras,
            proprio=self.observations.proprio_spec(),
            action=self.actions.spec,
            extra={
                "seed": seed,
                "action_repeat": action_repeat,
                "time_limit": time_limit,
                "rate_hz": config.rate_hz,
                "interface": config.command.interface,
                "dry_run": dry_run,
            },
            signals=SIGNALS,
            depths=self.observations.depths,
        )

    @property
    def supervisor(self) -> Supervisor:
        return self.motion.supervisor

    @property
    def period_s(self) -> float:
        """The control period [s]."""
        return self.motion.period_s

    # The contract -------------------------------------------------------------------------------

    def reset(self, seed: int | None = None) -> Observation:
        """Begin an episode. In simulated time the scene is set and the arm goes home first."""
        self._require_open()
        episodes = self._episodes
        if seed is None:
            seed = episodes.next_seed()
        if episodes.prepared != seed:
            self._get_ready(seed)
        episodes.prepared = None
        episodes.steps, self._outcome, episodes.ending = 0, None, False
        self._step = self._new_step()
        held = self.holding()
        return self._observation(executed=held, commanded=held.copy(), is_first=True)

    def _get_ready(self, seed: int) -> None:
        """Simulated time: set the scene and go home."""
        self.prepare(seed)
        for _ in range(int(HOME_S * self.config.rate_hz)):
            self.sense()
            if self.driver_ready() and self._home:
                there = self.go_home()
            else:
                self.tick(None)
                there = self.driver_ready() and self.at_rest()
            self._driver.wait(self.period_s)
            if there and not self.waiting_for():
                return
        raise RobotError(
            f"{self.config.robot}: not ready for an episode: "
            f"{self.waiting_for() or 'the arm is on its way home'}"
        )

    def observe(self) -> Observation:
        if self._newest is None:
            raise RobotError(
                f"{self.config.robot}: observe: got no episode, expected one. Call reset first."
            )
        return self._newest

    def act(self, action: npt.ArrayLike) -> Observation:
        self._require_open()
        episodes = self._episodes
        if self.observe().is_last:
            raise RobotError(
                f"{self.config.robot}: act: got an action after the last of {episodes.steps} agent "
                "steps, expected an episode that has not ended. Call reset."
            )
        _, commanded = checked_action(self.spec.action, action, self.config.robot)
        if self._outcome is None:
            for _ in range(self._repeat - self._step.periods):
                self.sense()
                self.tick(commanded, observed_s=self._driver.now_s())
                self._driver.wait(self.period_s)
            self._finish_step()
        assert self._outcome is not None
        outcome, self._outcome = self._outcome, None
        episodes.steps += 1
        score = self._driver.score()
        return self._observation(
            executed=outcome.executed,
            commanded=outcome.commanded,
            reward=score.reward,
            success=score.success,
            is_last=episodes.at_end,
            signals=outcome.signals,
        )

    def holding(self) -> Vector:
        return self.actions.holding(self.motion.filter.x)

    def stop(self) -> None:
        """Hold still, within the limits; in simulated time it stands when this returns."""
        if self._closed:
            return
        for _ in range(int(STOP_S * self.config.rate_hz)):
            self.sense()
            self.tick(None)
            if self.at_rest():
                return
            before = self._driver.now_s()
            self._driver.wait(self.period_s)
            if self._driver.now_s() - before < self.period_s / 2:
                return  # real time: the control loop goes on stopping

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._driver.halt()
            self._driver.close()

    # Real time ----------------------------------------------------------------------------------

    @property
    def tick_s(self) -> float:
        return self.period_s

    def prepare(self, seed: int) -> None:
        self._episodes.prepared = seed
        self._driver.request_scene(seed)

    def waiting_for(self) -> str:
        config, driver = self.config, self._driver
        if not driver.scene_is_set():
            return f"the scene is not set ({config.episodes.reset_service})"
        if driver.joints() is None:
            return f"no joint states on {config.joint_states}"
        missing = set(config.cameras) - set(driver.frames())
        if missing:
            name = sorted(missing)[0]
            source = config.cameras[name]
            return f"no image of {name!r} from {source.topic or source.device}"
        if config.force_torque is not None and driver.wrench() is None:
            return f"no reading of the force-torque sensor on {config.force_torque.topic}"
        if self.stopped():
            return f"stopped: {', '.join(self.supervisor.stopping)}"
        if not (self.supervisor.began or driver.settled):
            return "the driver's topics are new: waiting until all nodes are discovered"
        return "" if self.driver_ready() else "the driver is not ready"

    def sense(self) -> None:
        self.motion.sense()

    def tick(
        self, action: npt.ArrayLike | None, observed_s: float = np.inf, age_s: float = 0.0
    ) -> bool:
        complete = self._step.periods >= self._repeat
        if complete:
            self._finish_step()
        target, commanded = None, self.holding()
        if action is not None:
            try:
                done, commanded = checked_action(self.spec.action, action, self.config.robot)
                x = self.motion.filter.x
                target = self.actions.joint_velocities(done.astype(np.float64), x)
            except RobotError:
                target = np.full(len(self.config.limits.joints), np.nan)
        setpoint = self.motion.command(target, observed_s)
        self._step.add(commanded, age_s, len(setpoint.why), bool(self.supervisor.stopping))
        return complete

    def complete(self) -> bool:
        return self._outcome is not None

    def go_home(self) -> bool:
        self.motion.command(self.motion.towards_home(), self._driver.now_s())
        return self.motion.at_home

    def end_episode(self) -> None:
        self._episodes.ending = True

    def driver_ready(self) -> bool:
        return self.motion.ready()

    def at_rest(self) -> bool:
        return self.motion.at_rest

    def stopped(self) -> bool:
        return any(name != "plan" for name in self.supervisor.stopping)

    def latched(self) -> Mapping[str, str]:
        return dict(self.supervisor.latched)

    def latch(self, name: str, why: str) -> None:
        self.supervisor.latch(name, why)

    def clear(self) -> str:
        return self.supervisor.clear(self._driver.now_s())

    def invalidate_plans(self, now_s: float) -> None:
        self.supervisor.invalidate_plans(now_s)

    def set_speed_scale(self, scale: float) -> str:
        return self.motion.speed.set_operator(scale)

    def release_driver(self) -> None:
        self.supervisor.release()

    def take_driver(self, switched: bool) -> None:
        self.supervisor.take(switched)

    def halt(self) -> None:
        self._driver.halt()

    def image_age_s(self) -> float:
        return self.supervisor.image_age_s(self._driver.now_s())

    def faults(self) -> Mapping[str, str]:
        return diagnostics.faults(self.motion)

    def facts(self) -> Mapping[str, object]:
        return diagnostics.facts(self.motion)

    # Agent steps --------------------------------------------------------------------------------

    def _path_point(self) -> PathPoint:
        filter = self.motion.filter
        return PathPoint(filter.x.copy(), filter.end_effector.copy())

    def _new_step(self) -> AgentStep:
        return AgentStep(self._path_point(), np.zeros(len(self.actions.spec), np.float64))

    def _finish_step(self) -> None:
        """An agent step is complete: store its outcome, and begin to sum up the next."""
        step, measured = self._step, self.supervisor.measured
        end, seconds = self._path_point(), max(step.periods, 1) * self.period_s
        executed = self.actions.executed(
            step.begin, end, end.x if measured is None else measured, seconds
        )
        self._outcome = step.outcome(executed)
        self._step = self._new_step()

    def _observation(self, **rest: Any) -> Observation:
        observation = self.observations.make(self.supervisor.measured, **rest)
        if observation is None:
            raise RobotError(f"{self.config.robot}: {self.waiting_for()}.")
        self._newest = observation
        return observation

    def _require_open(self) -> None:
        if self._closed:
            raise RobotError(
                f"{self.config.robot}: got a closed arm, expected an open one. Make a new Arm."
            )
