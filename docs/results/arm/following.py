"""Tracking of a sine and stopping times of the safety filter, for the shipped robots.

python docs/results/arm/following.py     # writes following.csv; needs [sim, test]

Following: each joint alone, then all joints, with target velocities of 1 Hz and half of the
feasible amplitude, min(velocity, acceleration / w, jerk / w^2) with w = 2 pi / s, far from walls.
Gain and phase lag of the commanded velocity are a least squares fit of a sine after two seconds.
Overshoot: the largest excess of a velocity over a constant target, from rest and after a change.
Braking: time of the stop from full speed, and of ruckig's time-optimal one with the same limits
(Berscheid and Kroeger, Jerk-limited Real-time Trajectory Generation with Arbitrary Target States,
RSS 2021). A stop on the spline takes four control periods more; they are not counted.
"""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import ruckig

from wm_nodes.robots.arm.config.arm_config import ArmConfig, find_config, read_config
from wm_nodes.robots.arm.geometry.kinematics import Kinematics
from wm_nodes.robots.arm.safety.limits import MAX_HAND_SPEED_M_S, ArmLimits, Floats
from wm_nodes.robots.arm.safety.safety_filter import SafetyFilter
from wm_nodes.robots.arm.safety.stopping import StoppingMotions

ROBOTS = ("arm_sim", "ur5e", "fr3", "gen3", "jaco2")
HZ, SHARE = 1.0, 0.5
SETTLE_S, SECONDS = 2.0, 6.0
CHUNK = 5  # periods


def free_filter(arm: ArmConfig) -> SafetyFilter:
    """Return the filter of an arm at home, with limits of positions and workspace out of reach."""
    limits = replace(
        arm.limits,
        low=arm.limits.low - 100.0,
        high=arm.limits.high + 100.0,
        target_change=2.0 * arm.limits.velocity,
        box_low=np.full(3, -100.0),
        box_high=np.full(3, 100.0),
        hand_speed=MAX_HAND_SPEED_M_S,
    )
    kinematics = Kinematics(arm.model, limits.joints, arm.hand)
    filter = SafetyFilter(limits, kinematics, 1.0 / arm.rate_hz)
    filter.start(arm.home)
    return filter


def follow(arm: ArmConfig, targets: Floats) -> Floats:
    """Return commanded velocities (T, n) for target velocities (T, n), one per period."""
    filter = free_filter(arm)
    period = filter.period_s
    return np.array([
        filter.step(target, index * period).velocity for index, target in enumerate(targets)
    ])  # fmt: skip


def feasible(limits: ArmLimits, hz: float) -> Floats:
    """Return the largest amplitude (n,) of a sine velocity [rad/s]."""
    turn = 2.0 * np.pi * hz
    by_change = np.minimum(limits.acceleration / turn, limits.jerk / turn**2)
    return np.asarray(np.minimum(limits.velocity, by_change))


def sine(arm: ArmConfig, joints: Floats) -> tuple[Floats, Floats]:
    """Return (gain, phase lag [deg]) of the joints that are 1 in `joints` (n,), both (k,)."""
    turn = 2.0 * np.pi * HZ
    amplitude = SHARE * feasible(arm.limits, HZ) * joints
    times = np.arange(round(SECONDS * arm.rate_hz)) / arm.rate_hz
    velocities = follow(arm, np.sin(turn * times)[:, None] * amplitude)
    late = times >= SETTLE_S
    waves = np.stack([np.sin(turn * times[late]), np.cos(turn * times[late])], axis=1)
    inphase, ahead = np.linalg.lstsq(waves, velocities[late], rcond=None)[0][:, joints > 0]
    gain = np.hypot(inphase, ahead) / amplitude[joints > 0]
    return gain, np.degrees(-np.arctan2(ahead, inphase))


def overshoot(arm: ArmConfig, seed: int) -> float:
    """Return the largest excess [rad/s] of velocities over a step from rest and a higher one."""
    random, seconds = np.random.default_rng(seed), 3.0
    limits, count = arm.limits, round(seconds * arm.rate_hz)
    first = random.uniform(-0.4, 0.4, len(limits.joints)) * limits.velocity
    second = random.uniform(1.0, 2.0, len(first)) * first
    velocities = follow(arm, np.repeat([first, second], count, axis=0))
    over = [
        ((part - target) * np.sign(target)).max()
        for part, target in ((velocities[:count], first), (velocities[count:], second))
    ]
    return float(max(over))


def chunks(arm: ArmConfig, seed: int) -> float:
    """Return the error of following a chunked smooth plan: RMS as a share of the plan's RMS."""
    random, rate = np.random.default_rng(seed), arm.rate_hz
    times = np.arange(round(SECONDS * rate)) / rate
    phases = random.uniform(0.0, 2.0 * np.pi, len(arm.limits.joints))
    wave = np.sin(2.0 * np.pi * 0.5 * times[:, None] + phases)
    plan = SHARE * feasible(arm.limits, 0.5) * wave
    chunked = plan[np.arange(len(plan)) // CHUNK * CHUNK]
    late = times >= SETTLE_S
    error = (follow(arm, chunked) - plan)[late] / plan[late].std(axis=0)
    return float(np.sqrt(np.mean(error**2)))


def optimal_stop_s(limits: ArmLimits, v: Floats, a: Floats) -> float:
    """Return the time [s] of ruckig's time-synchronised stop from v and a (n,)."""
    n = len(v)
    request = ruckig.InputParameter(n)
    request.control_interface = ruckig.ControlInterface.Velocity
    request.synchronization = ruckig.Synchronization.Time
    request.current_position = [0.0] * n
    request.current_velocity, request.current_acceleration = v.tolist(), a.tolist()
    request.target_velocity = request.target_acceleration = [0.0] * n
    request.max_acceleration, request.max_jerk = limits.acceleration.tolist(), limits.jerk.tolist()
    trajectory = ruckig.Trajectory(n)
    result = ruckig.Ruckig(n).calculate(request, trajectory)
    assert result in (ruckig.Result.Working, ruckig.Result.Finished), result
    return float(trajectory.duration)


def braking(arm: ArmConfig) -> tuple[Floats, Floats]:
    """Return times [s] of the filter's stops and of ruckig's, (n + 1,): all joints, then each."""
    limits, period = arm.limits, 1.0 / arm.rate_hz
    brake, n = StoppingMotions(limits, period), len(limits.joints)
    still, stops, best = np.zeros(n), [], []
    for joints in (np.ones(n), *np.eye(n)):
        path = brake.stop(still, brake.velocity * joints, still)
        assert path is not None
        stops.append((path.shape[1] - 1) * period)
        best.append(optimal_stop_s(limits, brake.velocity * joints, still))
    return np.array(stops), np.array(best)


def measure(name: str) -> dict[str, Any]:
    """Return one row of the table."""
    arm = read_config(find_config(name))
    alone = [sine(arm, joints) for joints in np.eye(len(arm.limits.joints))]
    gain, lag = sine(arm, np.ones(len(arm.limits.joints)))
    stops, best = braking(arm)
    return {
        "robot": name,
        "rate_hz": arm.rate_hz,
        "gain_one_joint": round(min(float(gains[0]) for gains, _ in alone), 3),
        "gain_all_joints": round(float(gain.min()), 3),
        "lag_deg": round(max(float(lag.max()), *(float(lags[0]) for _, lags in alone)), 1),
        "overshoot_rad_s": f"{max(0.0, *(overshoot(arm, seed) for seed in range(10))):.1e}",
        "chunk_error_share": round(chunks(arm, 0), 3),
        "stop_all_s": round(float(stops[0]), 3),
        "ruckig_all_s": round(float(best[0]), 3),
        "stop_share_all": round(float(stops[0] / best[0]), 3),
        "stop_share_worst_joint": round(float((stops / best)[1:].max()), 3),
    }


def main() -> None:
    rows = []
    for name in ROBOTS:
        rows.append(measure(name))
        print(rows[-1], flush=True)
    with Path(__file__).with_name("following.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, fieldnames=list(rows[0]))
        table.writeheader()
        table.writerows(rows)


if __name__ == "__main__":
    main()
