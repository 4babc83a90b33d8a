"""An arm behind the Robot contract: actions in, observations out; `ArmMotion` moves it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from wm_datasets.spec import VectorSpec
from wm_nodes.robots.arm import wrench
from wm_nodes.robots.arm.config import ArmConfig
from wm_nodes.robots.arm.driver import Bus
from wm_nodes.robots.arm.gripper import GripperAction
from wm_nodes.robots.arm.limits import Floats
from wm_nodes.robots.arm.motion import ArmMotion
from wm_nodes.robots.robot import (
    Observation,
    RealtimeRobot,
    RobotError,
    RobotSpec,
    Vector,
    checked_action,
)
from wm_nodes.robots.seeds import episode_seed

UPRIGHT_PER_S = 3.0  # how fast a turned hand is turned back
HOME_S, STOP_S = 60.0, 10.0  # in simulated time: to reach home, to come to rest
TELLS = {  # stops in words
    "estop": "emergency stop",
    "tracking": "the arm does not follow",
    "displaced": "the arm is not where it was commanded to be",
    "gate": "a command beyond one period's reach was not sent",
    "commander": "another node commands this arm",
    "record": "the record of the last run cannot be read",
    "driver": "no joint states: stopped",
    "driver_paused": "the driver reports speed 0 (paused on its pendant): stopped",
    "driver_speed": "the driver's speed scaling is unknown: stopped",
    "deactivated": "the driver's controller is not active: call activate, then resume",
    "camera": "no images: stopped",
    "camera_late": "the images are too old by their stamps: stopped",
    "frozen": "the same image again and again: stopped",
    "plan": "no plan that counts: holding",
    wrench.STOP: "no usable reading of the force-torque sensor: stopped",
    wrench.LATCH: "force or torque beyond its limit",
}
SIGNALS = VectorSpec(
    names=("latency_ms", "interventions", "stopped"),
    units=("ms", "1", "1"),
    low=(0.0, 0.0, 0.0),
    high=(float("inf"),) * 3,
)


@dataclass
class _AgentStep:
    """What is summed up over the control periods of one agent step."""

    hand: Floats  # where the end effector was at its beginning
    x: Floats  # and the joints
    asked: Floats  # sum of actions (A,)
    ticks: int = 0
    latency_s: float = 0.0
    why: int = 0
    stops: int = 0


class Arm(RealtimeRobot):
    """One arm. An agent step lasts `action_repeat` control periods; time passes on the bus.

    In simulated time `reset` and `act` execute all control periods themselves.
    """

    def __init__(
        self,
        bus: Bus,
        config: ArmConfig,
        *,
        task: str = "reach",
        seed: int = 0,
        action_repeat: int = 5,
        time_limit: int = 100,
        dry_run: bool = False,
        home: bool = True,
    ) -> None:
        self.config, self._bus, self._home = config, bus, home
        self.motion = ArmMotion(bus, config, dry_run=dry_run)
        self.guard, self.kinematics = self.motion.guard, self.motion.kinematics
        self.period_s = self.motion.period_s
        self._upright = self.kinematics.orientation(config.home)
        self._gripper = GripperAction(config) if config.gripper_acts(task) else None
        self._repeat, self._limit = action_repeat, time_limit
        self._seed, self._episode = seed, 0
        self._steps = 0
        self._newest: Observation | None = None
        self._closed = self._ending = False
        self._prepared: int | None = None  # seed of the episode that is being prepared
        self._stamp_ns = 0
        self._whole: tuple[Vector, Vector, Vector] | None = None  # executed, commanded, signals
        action = self._action_spec()
        self._action_dims = len(action)
        self._begin_sums()
        self.spec = RobotSpec(
            name=config.robot,
            task=task,
            control_period_s=self.period_s * action_repeat,
            cameras={n: (c.height, c.width, 3) for n, c in config.cameras.items() if not c.depth},
            proprio=self._proprio_spec(),
            action=action,
            extra={
                "seed": seed,
                "action_repeat": action_repeat,
                "time_limit": time_limit,
                "rate_hz": config.rate_hz,
                "interface": config.command.interface,
                "dry_run": dry_run,
            },
            signals=SIGNALS,
            depths={n: (c.height, c.width) for n, c in config.cameras.items() if c.depth},
        )
        self._low, self._high = np.array(action.low), np.array(action.high)

    # The contract -------------------------------------------------------------------------------

    def reset(self, seed: int | None = None) -> Observation:
        """Begin an episode. In simulated time the scene is set and the arm goes home first."""
        self._require_open()
        if seed is None:
            seed = episode_seed(self._seed, self._episode)
            self._episode += 1
        if self._prepared != seed:
            self._get_ready(seed)
        self._prepared = None
        self._steps, self._whole, self._ending = 0, None, False
        self._begin_sums()
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
            self._bus.wait(self.period_s)
            if there and not self.waiting_for():
                return
        raise RobotError(
            f"{self.config.robot}: not ready for an episode: "
            f"{self.waiting_for() or 'the arm is on its way home'}"
        )

    def observe(self) -> Observation:
        if self._newest is None:
            raise RobotError(f"{self.config.robot}: no episode yet. Right: call reset first.")
        return self._newest

    def act(self, action: npt.ArrayLike) -> Observation:
        self._require_open()
        if self.observe().is_last:
            raise RobotError(
                f"{self.config.robot}: the episode ended after {self._steps} agent steps. "
                "Right: call reset."
            )
        _, commanded = checked_action(self.spec.action, action, self.config.robot)
        if self._whole is None:
            for _ in range(self._repeat - self._now.ticks):
                self.sense()
                self.tick(commanded, made_s=self._bus.now_s())
                self._bus.wait(self.period_s)
            self._finish()
        assert self._whole is not None
        executed, asked, signals = self._whole
        self._whole = None
        self._steps += 1
        score = self._bus.score()
        return self._observation(
            executed=executed,
            commanded=asked,
            reward=score.reward,
            success=score.success,
            is_last=self._ending or self._steps >= self._limit,
            signals=signals,
        )

    def holding(self) -> Vector:
        held = np.zeros(len(self.spec.action), np.float32)
        if self._gripper is not None:
            held[-1] = self._gripper.held(self.motion.filter.x[-1])
        return held

    def stop(self) -> None:
        """Hold still, within the limits; in simulated time it stands when this returns."""
        if self._closed:
            return
        for _ in range(int(STOP_S * self.config.rate_hz)):
            self.sense()
            self.tick(None)
            if self.at_rest():
                return
            before = self._bus.now_s()
            self._bus.wait(self.period_s)
            if self._bus.now_s() - before < self.period_s / 2:
                return  # real time: the control loop goes on stopping

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._bus.halt()
            self._bus.close()

    # Real time ----------------------------------------------------------------------------------

    @property
    def tick_s(self) -> float:
        return self.period_s

    def prepare(self, seed: int) -> None:
        self._prepared = seed
        self._bus.begin(seed)

    def waiting_for(self) -> str:
        if not self._bus.begun():
            return f"the scene is not set ({self.config.episodes.reset_service})"
        if self._bus.joints() is None:
            return f"no joint states on {self.config.joint_states}"
        missing = set(self.config.cameras) - set(self._bus.frames())
        if missing:
            name = sorted(missing)[0]
            source = self.config.cameras[name]
            return f"no image of {name!r} from {source.topic or source.device}"
        force_torque = self.config.force_torque
        if force_torque is not None and self._bus.wrench() is None:
            return f"no reading of the force-torque sensor on {force_torque.topic}"
        if self.stopped():
            return f"stopped: {', '.join(self.guard.stopping)}"
        if not (self.guard.began or self._bus.settled):
            return "the driver's topics are new: waiting until all nodes are discovered"
        return "" if self.driver_ready() else "the driver is not ready"

    def sense(self) -> None:
        self.motion.sense()

    def tick(
        self, action: npt.ArrayLike | None, made_s: float = np.inf, age_s: float = 0.0
    ) -> bool:
        whole = self._now.ticks >= self._repeat
        if whole:
            self._finish()
        wanted, asked = None, self.holding()
        if action is not None:
            try:
                done, asked = checked_action(self.spec.action, action, self.config.robot)
                wanted = self._joint_velocities(done.astype(np.float64))
            except RobotError:
                wanted = np.full(len(self.config.limits.joints), np.nan)
        setpoint = self.motion.command(wanted, made_s)
        sums = self._now
        sums.ticks += 1
        sums.asked += asked
        sums.latency_s = max(sums.latency_s, age_s)
        sums.why += len(setpoint.why)
        sums.stops += bool(self.guard.stopping)
        return whole

    def complete(self) -> bool:
        return self._whole is not None

    def go_home(self) -> bool:
        self.motion.command(self.motion.towards_home(), self._bus.now_s())
        return self.motion.at_home

    def end_episode(self) -> None:
        self._ending = True

    def driver_ready(self) -> bool:
        return self.motion.ready()

    def at_rest(self) -> bool:
        return self.motion.at_rest

    def stopped(self) -> bool:
        return any(name != "plan" for name in self.guard.stopping)

    def latched(self) -> Mapping[str, str]:
        return dict(self.guard.latched)

    def latch(self, name: str, why: str) -> None:
        self.guard.latch(name, why)

    def clear(self) -> str:
        return self.guard.clear(self._bus.now_s())

    def invalidate_plans(self, now_s: float) -> None:
        self.guard.invalidate_plans(now_s)

    def set_speed_scale(self, scale: float) -> str:
        return self.motion.speed.set_operator(scale)

    def release_driver(self) -> None:
        self.guard.release()

    def take_driver(self, anew: bool) -> None:
        self.guard.take(anew)

    def halt(self) -> None:
        self._bus.halt()

    def image_age_s(self) -> float:
        return self.guard.image_age_s(self._bus.now_s())

    def faults(self) -> Mapping[str, str]:
        guard = self.guard
        found = {name: TELLS.get(name, name) for name in guard.stopping}
        found |= self._bus.reports()
        found |= guard.wires
        for name, why in dict(guard.latched).items():
            found[name] = f"{TELLS.get(name, name)}: {why}. Latched: call clear, then resume"
        if self.motion.filter.outside and guard.measured is not None:
            found["outside"] = f"beyond its limits: {', '.join(self.motion.filter.outside)}"
        return found

    def facts(self) -> Mapping[str, object]:
        filter, guard = self.motion.filter, self.guard
        done = {f"interventions/{k}": v for k, v in sorted(filter.interventions.items())}
        stops = {f"stops/{k}": v for k, v in sorted(guard.stops.items())}
        age_ms = f"{1e3 * self.image_age_s():.0f}"
        speeds = self._speed_facts()
        return {
            **done,
            **stops,
            **speeds,
            "moving": str(not filter.at_rest).lower(),
            "image_age_ms": age_ms,
        }

    def _speed_facts(self) -> dict[str, str]:
        speed = self.motion.speed
        driver = speed.driver(self._bus.now_s())
        dropped = {
            f"drops/speed_scaling/{k}": str(v) for k, v in sorted(dict(speed.dropped).items())
        }
        driver_scale = "unknown" if driver is None else f"{driver:g}"
        return {"speed_scale": f"{speed.operator:g}", "driver_speed_scale": driver_scale, **dropped}

    # Actions ------------------------------------------------------------------------------------

    def _action_spec(self) -> VectorSpec:
        config, limits = self.config, self.config.limits
        count = config.arm_joints
        if config.action.kind == "hand_velocity":
            names, units = ["x", "y", "z"], ["m/s"] * 3
            high = [config.action.speed] * 3
        else:
            names, units = list(limits.joints[:count]), ["rad/s"] * count
            high = [config.action.speed * float(v) for v in limits.velocity[:count]]
        if self._gripper is not None:
            names, units, high = [*names, self._gripper.name], [*units, "1"], [*high, 1.0]
        return VectorSpec(tuple(names), tuple(units), tuple(-v for v in high), tuple(high))

    def _joint_velocities(self, action: Floats) -> Floats:
        """Return the joint velocities (n,) that an action (A,) asks for."""
        n, count = len(self.config.limits.joints), self.config.arm_joints
        out = np.zeros(n)
        if self._gripper is not None:
            out[count] = self._gripper.velocity(action[-1], self.motion.filter.x[count])
        if self.config.action.kind == "joint_velocity":
            out[:count] = action[:count]
            return out
        if not action[:3].any():
            return out  # nothing asked for is nothing done: the hand is not even turned back
        x = self.motion.filter.x
        back = UPRIGHT_PER_S * self.kinematics.turned(x, self._upright)
        out[:count] = self.kinematics.follow(x, np.concatenate([action[:3], back]), count)
        return out

    def _executed(self) -> Vector:
        """Return what was really done in this agent step, in the action's terms."""
        seconds = max(self._now.ticks, 1) * self.period_s
        filter, count = self.motion.filter, self.config.arm_joints
        if self.config.action.kind == "hand_velocity":
            parts = [(filter.hand - self._now.hand) / seconds]
        else:
            parts = [(filter.x - self._now.x)[:count] / seconds]
        if self._gripper is not None:
            measured = filter.x if self.guard.measured is None else self.guard.measured
            places = self._now.x[count], filter.x[count], measured[count]
            parts.append(np.array([self._gripper.executed(*places, seconds)]))
        done = np.concatenate(parts).astype(np.float32)
        return np.clip(done, self._low.astype(np.float32), self._high.astype(np.float32))

    # Observations -------------------------------------------------------------------------------

    def _begin_sums(self) -> None:
        filter = self.motion.filter
        asked = np.zeros(self._action_dims, np.float64)
        self._now = _AgentStep(filter.hand.copy(), filter.x.copy(), asked)

    def _finish(self) -> None:
        """An agent step is complete: note what was done, and begin to sum up the next."""
        now = self._now
        asked = np.asarray(now.asked / max(now.ticks, 1), np.float32)
        signals = np.array([now.latency_s * 1e3, now.why, now.stops], np.float32)
        self._whole = self._executed(), asked, signals
        self._begin_sums()

    def _observation(self, **rest: Any) -> Observation:
        place, frames = self.guard.measured, self._bus.frames()
        if place is None or not set(self.config.cameras) <= set(frames):
            raise RobotError(f"{self.config.robot}: {self.waiting_for()}.")
        forces = None
        if self.config.force_torque is not None:
            reading = self._bus.wrench()
            if reading is None:
                raise RobotError(f"{self.config.robot}: {self.waiting_for()}.")
            forces = reading.values
        now_ns = round(self._bus.now_s() * 1e9)
        self._stamp_ns = max(now_ns, self._stamp_ns + round(self.spec.control_period_s * 1e9))
        self._newest = Observation(
            images={name: frames[name].look() for name in self.spec.cameras},
            depths={name: frames[name].look() for name in self.spec.depths},
            proprio=self._proprio(place, forces),
            stamp_ns=self._stamp_ns,
            **rest,
        )
        return self._newest

    def _proprio(self, position: Floats, forces: Floats | None = None) -> Vector:
        """Return proprioception (P,) of a pose (n,); forces (6,) [N, Nm], zeros if not given."""
        hand = self.kinematics.positions(position[None])[0]
        parts = [position, hand]
        if self.config.force_torque is not None:
            parts.append(np.zeros(len(wrench.NAMES)) if forces is None else forces)
        return np.concatenate(parts).astype(np.float32)

    def _proprio_spec(self) -> VectorSpec:
        limits = self.config.limits
        units = ["rad"] * self.config.arm_joints + ["m"] * (self.config.gripper is not None)
        names = wrench.NAMES if self.config.force_torque is not None else ()
        beyond = (float("inf"),) * len(names)
        return VectorSpec(
            (*limits.joints, "hand_x", "hand_y", "hand_z", *names),
            (*units, "m", "m", "m", *wrench.UNITS[: len(names)]),
            (*limits.low.tolist(), *limits.box_low.tolist(), *(-value for value in beyond)),
            (*limits.high.tolist(), *limits.box_high.tolist(), *beyond),
        )

    def _require_open(self) -> None:
        if self._closed:
            raise RobotError(f"{self.config.robot}: closed. Right: make a new Arm.")
