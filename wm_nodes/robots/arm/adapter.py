"""An arm behind the Robot contract: actions in, the safety filter, commands out to any driver."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from wm_datasets.spec import VectorSpec
from wm_nodes.robots.arm.bus import Bus
from wm_nodes.robots.arm.config import ArmConfig
from wm_nodes.robots.arm.guard import Guard
from wm_nodes.robots.arm.kinematics import Kinematics
from wm_nodes.robots.arm.limits import Floats
from wm_nodes.robots.arm.safety import SafetyFilter, Setpoint
from wm_nodes.robots.base import (
    Observation,
    Robot,
    RobotError,
    RobotSpec,
    Vector,
    checked_action,
    episode_seed,
)

UPRIGHT_PER_S = 3.0  # how fast a turned hand is turned back
HOMING_PER_S = 2.5
REPEATS = 5  # of the last place, to a driver that has gone silent
AT_HOME = 0.004  # rad (m)
FOLLOW = 0.1  # of the deviation, each period, where only velocities are commanded
TELLS = {  # what a stop means, for people
    "estop": "emergency stop: holding until it is cleared",
    "tracking": "the arm does not follow: holding until it is cleared",
    "driver": "no joint states: stopped",
    "camera": "no pictures: stopped",
    "frozen": "the same picture again and again: stopped",
    "plan": "no plan that counts: holding",
}
SIGNALS = VectorSpec(
    names=("latency_ms", "interventions", "stopped"),
    units=("ms", "1", "1"),
    low=(0.0, 0.0, 0.0),
    high=(float("inf"),) * 3,
)


@dataclass
class _Decision:
    """What is summed up over the control periods of one decision."""

    hand: Floats  # where the hand was at its beginning
    x: Floats  # and the joints
    asked: Floats  # sum of actions (A,)
    ticks: int = 0
    latency_s: float = 0.0
    why: int = 0
    stops: int = 0


class Arm(Robot):
    """One arm. A decision lasts `action_repeat` control periods; time passes on the bus.

    In simulated time `act` does all of them. In real time somebody calls `tick` each control
    period, and `act` when that says that a decision is whole: it moves nothing then.
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
        self.config, self._bus, self._dry, self._home = config, bus, dry_run, home
        limits = config.limits
        self.period_s = 1.0 / config.rate_hz
        self.kinematics = Kinematics(config.model, limits.joints, config.hand)
        self.guard = Guard(
            SafetyFilter(limits, self.kinematics, self.period_s), config.watch, config.arm_joints
        )
        if dry_run:
            self.guard.ignore_tracking()
        self._upright = self.kinematics.orientation(config.home)
        self._grips = config.gripper is not None and task in config.action.gripper_tasks
        self._repeat, self._limit = action_repeat, time_limit
        self._seed, self._episode = seed, 0
        self._decision = 0
        self._newest: Observation | None = None
        self._closed = self._stopped = False
        self._last_s = -np.inf  # of joint states taken in
        self._numbers: dict[str, int] = {}
        action = self._action_spec()
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
        if self._settled_for != seed:
            self.prepare(seed)
            for _ in range(int(60 * self.config.rate_hz)):
                settled = self.settle()
                self._bus.wait(self.period_s)
                if settled:
                    break
            else:
                raise RobotError(
                    f"{self.config.robot}: not ready for an episode: {self.waiting_for}"
                )
        self._settled_for = None
        self._decision, self._whole = 0, None
        self._begin_sums()
        zeros = np.zeros(len(self.spec.action), np.float32)
        return self._observation(executed=zeros, commanded=zeros.copy(), is_first=True)

    def observe(self) -> Observation:
        if self._newest is None:
            raise RobotError(f"{self.config.robot}: no episode yet. Right: call reset first.")
        return self._newest

    def act(self, action: npt.ArrayLike) -> Observation:
        self._require_open()
        if self.observe().is_last:
            raise RobotError(
                f"{self.config.robot}: the episode ended after {self._decision} decisions. "
                "Right: call reset."
            )
        _, commanded = checked_action(self.spec.action, action, self.config.robot)
        if self._whole is None:
            for _ in range(self._repeat - self._now.ticks):
                self.tick(commanded, made_s=self._bus.now_s())
                self._bus.wait(self.period_s)
            self._finish()
        assert self._whole is not None
        executed, asked, signals = self._whole
        self._whole = None
        self._decision += 1
        score = self._bus.score()
        return self._observation(
            executed=executed,
            commanded=asked,
            reward=score.reward,
            success=score.success,
            is_last=self._decision >= self._limit,
            signals=signals,
        )

    def stop(self) -> None:
        """Hold still, within the limits; in simulated time it stands when this returns."""
        if self._closed:
            return
        for _ in range(int(10 * self.config.rate_hz)):
            self.tick(None)
            if self.guard.filter.at_rest:
                return
            before = self._bus.now_s()
            self._bus.wait(self.period_s)
            if self._bus.now_s() - before < self.period_s / 2:
                return  # time passes by itself: whoever calls `tick` goes on stopping

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._bus.close()

    # Real time ----------------------------------------------------------------------------------

    @property
    def tick_s(self) -> float:
        return self.period_s

    def prepare(self, seed: int) -> None:
        """Ask for the scene of the next episode; `settle` then says when it can begin."""
        self._preparing, self._settled_for = seed, None
        self._homing = self._home
        self._bus.begin(seed)

    def estop(self, on: bool) -> None:
        """Latch a stop, or clear every latch: only a plan made after that moves the arm again."""
        if on:
            self.guard.estop()
        else:
            self.guard.clear(self._bus.now_s())

    def faults(self) -> Mapping[str, str]:
        guard = self.guard
        found = {name: TELLS.get(name, name) for name in guard.stopping}
        found |= {name: f"{TELLS[name]} ({why})" for name, why in guard.latched.items()}
        if guard.filter.outside and guard.knows:
            found["outside"] = f"beyond its limits: {', '.join(guard.filter.outside)}"
        if self._waiting:
            found["waiting"] = self.waiting_for
        return found

    def facts(self) -> Mapping[str, object]:
        guard = self.guard
        done = {f"interventions/{k}": v for k, v in sorted(guard.filter.interventions.items())}
        stops = {f"stops/{k}": v for k, v in sorted(guard.stops.items())}
        return {**done, **stops, "moving": str(not guard.filter.at_rest).lower()}

    def settle(self) -> bool:
        """Between episodes, each control period: go home; True when the next one can begin."""
        if self._settled_for is not None:
            self.tick(None)
            return True
        now = self._bus.now_s()
        ready = self._bus.begun() and self.guard.knows
        self._take_in(now)
        wanted = self._homeward() if self._homing and ready else None
        self._command(wanted, made_s=now, now=now)
        ready = ready and self._all_seen()
        if ready and self.guard.filter.at_rest and (not self._homing or self._off_home() < 2):
            self._settled_for, self._waiting = self._preparing, False
            return True
        self._waiting = True
        return False

    @property
    def waiting_for(self) -> str:
        """Say why an episode cannot begin yet."""
        if not self._bus.begun():
            return f"the scene is not set ({self.config.episodes.reset_service})"
        if self._bus.joints() is None:
            return f"no joint states on {self.config.joint_states}"
        missing = set(self.config.cameras) - set(self._bus.frames())
        if missing:
            name = sorted(missing)[0]
            source = self.config.cameras[name]
            return f"no picture of {name!r} from {source.topic or source.device}"
        if self.guard.stopping and self.guard.stopping != ("plan",):
            return f"stopped: {', '.join(self.guard.stopping)}"
        return "the arm is on its way home"

    def tick(
        self, action: npt.ArrayLike | None, made_s: float = np.inf, age_s: float = 0.0
    ) -> bool:
        """One control period: command the next position towards `action` (A,); None: stop.

        made_s: steady time of the observation that the action answers; age_s: how old its picture
        is by now. Returns True when a decision is whole: `act` is to be called.
        """
        now = self._bus.now_s()
        whole = self._now.ticks >= self._repeat
        if whole:
            self._finish()
        self._take_in(now)
        wanted, asked = None, self._nothing
        if action is not None:
            try:
                done, asked = checked_action(self.spec.action, action, self.config.robot)
                wanted = self._joint_velocities(done.astype(np.float64))
            except RobotError:
                wanted = np.full(len(self.config.limits.joints), np.nan)
        setpoint = self._command(wanted, made_s=made_s, now=now)
        sums = self._now
        sums.ticks += 1
        sums.asked += asked
        sums.latency_s = max(sums.latency_s, age_s)
        sums.why += len(setpoint.why)
        sums.stops += bool(self.guard.stopping)
        return whole

    def _take_in(self, now: float) -> None:
        reading = self._bus.joints()
        if reading is not None and reading.number != self._numbers.get(""):
            self._numbers[""] = reading.number
            self.guard.saw_driver(reading.position, reading.velocity, reading.came_s)
        for name, frame in self._bus.frames().items():
            if frame.number != self._numbers.get(name):
                self._numbers[name] = frame.number
                self.guard.saw_camera(name, frame.came_s, frame.changed)
        place = self.guard.measured
        if self.config.command.interface in ("velocity", "twist") and place is not None:
            n, filter = self.config.arm_joints, self.guard.filter
            shift = np.zeros(len(filter.x))
            most = 0.02 * filter.limits.velocity[:n] * self.period_s
            shift[:n] = np.clip(FOLLOW * (place - filter.x)[:n], -most, most)
            filter.correct(shift)

    def _command(self, wanted: Floats | None, *, made_s: float, now: float) -> Setpoint:
        setpoint = self.guard.step(wanted, made_s, now)
        if not self._dry and setpoint.moved and self._may_send():
            self._bus.send(setpoint)
        return setpoint

    def _may_send(self) -> bool:
        """Say nothing before the arm has said where it is, nor to a silent one that rests.

        A driver that comes back must not find a position to jump to.
        """
        guard = self.guard
        places = self.config.command.interface in ("position", "trajectory")
        away = "driver" in guard.stopping and guard.filter.at_rest and places
        self._away = self._away + 1 if away else 0
        return guard.knows and self._away <= REPEATS

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
        if self._grips:
            names, units, high = [*names, "gripper"], [*units, "1"], [*high, 1.0]
        self._nothing = np.zeros(len(names), np.float32)
        return VectorSpec(tuple(names), tuple(units), tuple(-v for v in high), tuple(high))

    def _joint_velocities(self, action: Floats) -> Floats:
        """Return the joint velocities (n,) that an action (A,) asks for."""
        n, count = len(self.config.limits.joints), self.config.arm_joints
        out = np.zeros(n)
        if self._grips:
            out[count] = action[-1] * self.config.limits.velocity[count]
        if self.config.action.kind == "joint_velocity":
            out[:count] = action[:count]
            return out
        if not action[:3].any():
            return out  # nothing asked for is nothing done: the hand is not even turned back
        x = self.guard.filter.x
        back = UPRIGHT_PER_S * self.kinematics.turned(x, self._upright)
        out[:count] = self.kinematics.follow(x, np.concatenate([action[:3], back]), count)
        return out

    def _executed(self) -> Vector:
        """Return what was really done since the last decision, in the action's terms."""
        seconds = max(self._now.ticks, 1) * self.period_s
        filter, count = self.guard.filter, self.config.arm_joints
        if self.config.action.kind == "hand_velocity":
            parts = [(filter.hand - self._now.hand) / seconds]
        else:
            parts = [(filter.x - self._now.x)[:count] / seconds]
        if self._grips:
            speed = (filter.x - self._now.x)[count] / seconds
            parts.append(np.array([speed / self.config.limits.velocity[count]]))
        done = np.concatenate(parts).astype(np.float32)
        return np.clip(done, self._low.astype(np.float32), self._high.astype(np.float32))

    def _homeward(self) -> Floats | None:
        """Return the velocity towards home; None: there, and to come to rest."""
        limits = self.config.limits
        if self._off_home() < 1:
            return None
        way = HOMING_PER_S * (self.config.home - self.guard.filter.x)
        return np.asarray(np.clip(way, -0.5 * limits.velocity, 0.5 * limits.velocity))

    def _off_home(self) -> float:
        """Return how far from home the arm is, in units of what is near enough."""
        return float(np.abs(self.guard.filter.x - self.config.home).max() / AT_HOME)

    # Observations -------------------------------------------------------------------------------

    _settled_for: int | None = None
    _preparing = 0
    _homing = _waiting = False
    _stamp_ns = 0
    _away = 0  # periods at rest with a silent driver
    _whole: tuple[Vector, Vector, Vector] | None = None  # executed, commanded, signals

    def _begin_sums(self) -> None:
        filter = self.guard.filter
        self._now = _Decision(
            filter.hand.copy(), filter.x.copy(), np.zeros(len(self._nothing), np.float64)
        )

    def _finish(self) -> None:
        """A decision is whole: note what was done, and begin to sum up the next."""
        now = self._now
        asked = np.asarray(now.asked / max(now.ticks, 1), np.float32)
        signals = np.array([now.latency_s * 1e3, now.why, now.stops], np.float32)
        self._whole = self._executed(), asked, signals
        self._begin_sums()

    def _all_seen(self) -> bool:
        return set(self.config.cameras) <= set(self._bus.frames())

    def picture_age_s(self) -> float:
        """Return how old the oldest of the newest pictures is now."""
        now = self._bus.now_s()
        return max((now - f.taken_s for f in self._bus.frames().values()), default=0.0)

    def _observation(self, **rest: Any) -> Observation:
        place, frames = self.guard.measured, self._bus.frames()
        if place is None or not self._all_seen():
            raise RobotError(f"{self.config.robot}: {self.waiting_for}.")
        now_ns = round(self._bus.now_s() * 1e9)
        self._stamp_ns = max(now_ns, self._stamp_ns + round(self.spec.control_period_s * 1e9))
        self._newest = Observation(
            images={name: frames[name].look() for name in self.spec.cameras},
            depths={name: frames[name].look() for name in self.spec.depths},
            proprio=self._proprio(place),
            stamp_ns=self._stamp_ns,
            **rest,
        )
        return self._newest

    def _proprio(self, position: Floats) -> Vector:
        hand = self.kinematics.positions(position[None])[0]
        return np.concatenate([position, hand]).astype(np.float32)

    def _proprio_spec(self) -> VectorSpec:
        limits = self.config.limits
        units = ["rad"] * self.config.arm_joints + ["m"] * (self.config.gripper is not None)
        return VectorSpec(
            (*limits.joints, "hand_x", "hand_y", "hand_z"),
            (*units, "m", "m", "m"),
            (*limits.low.tolist(), *limits.box_low.tolist()),
            (*limits.high.tolist(), *limits.box_high.tolist()),
        )

    def _require_open(self) -> None:
        if self._closed:
            raise RobotError(f"{self.config.robot}: closed. Right: make a new Arm.")
