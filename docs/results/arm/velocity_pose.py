"""Largest distance by which an arm that is commanded by velocities leaves its limits.

python docs/results/arm/velocity_pose.py     # writes velocity_pose.csv; needs [sim]

The driver holds each commanded velocity until the next command (a forward_velocity_controller), at
periods of nominal +- 10 %. Joint states are three periods old. The path is corrected by them as in
`ArmMotion`. Targets are those of `wm arm safety`.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wm_nodes.checks.safety_trial.calls import KINDS, calls
from wm_nodes.checks.safety_trial.trial import TIMEOUT_S
from wm_nodes.robots.arm.config.arm_config import find_config, read_config
from wm_nodes.robots.arm.geometry.kinematics import Kinematics
from wm_nodes.robots.arm.motion import FOLLOW
from wm_nodes.robots.arm.safety.safety_filter import SafetyFilter

ROBOTS = ("arm_sim", "ur5e", "fr3", "gen3", "jaco2")
SEEDS, STEPS = 6, 3000
AGE = 3  # of joint states, in periods


@dataclass(frozen=True)
class Excess:
    """Largest values: beyond limits of joints [rad], beyond the box [m], lag [rad]."""

    robot: str
    commands: int
    joint_rad: float
    box_m: float
    lag_rad: float


def measure(robot: str) -> Excess:
    """Return the largest values of SEEDS runs of STEPS targets of each kind."""
    arm = read_config(find_config(robot))
    limits, n, period = arm.limits, arm.arm_joints, 1.0 / arm.rate_hz
    kinematics = Kinematics(arm.model, limits.joints, arm.hand)
    most = 0.02 * limits.velocity[:n] * period
    joint = box = lag = 0.0
    commands = 0
    for seed in range(SEEDS):
        random = np.random.default_rng(seed)
        filter = SafetyFilter(limits, kinematics, period, "velocity", timeout_s=TIMEOUT_S)
        filter.start(arm.home)
        x, v, now_s = arm.home.copy(), np.zeros(len(arm.home)), 0.0
        measured = [x.copy()] * AGE
        for kind in KINDS:
            for order in calls(limits, kind, random, period, STEPS):
                step_s = period * random.uniform(0.9, 1.1)
                x, now_s = x + v * step_s, now_s + step_s
                measured = [*measured[1:], x.copy()]
                shift = np.zeros(len(x))
                shift[:n] = np.clip(FOLLOW * (measured[0] - filter.x)[:n], -most, most)
                filter.correct(shift)
                setpoint = filter.step(order.target, now_s)
                if setpoint.moved:
                    v = setpoint.velocity.copy()
                    commands += 1
                x[n:], v[n:] = setpoint.position[n:], 0.0  # a gripper is commanded by position
                position = kinematics.positions(x[None])[0]
                joint = max(joint, float(np.maximum(limits.low - x, x - limits.high)[:n].max()))
                out = np.maximum(limits.box_low - position, position - limits.box_high)
                box = max(box, float(out.max()))
                lag = max(lag, float(np.abs(x - filter.x)[:n].max()))
    return Excess(robot, commands, round(joint, 4), round(box, 4), round(lag, 4))


def main() -> None:
    """Measure all robots, print the rows and write them."""
    rows = [measure(robot) for robot in ROBOTS]
    with Path(__file__).with_suffix(".csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(Excess.__dataclass_fields__)
        for row in rows:
            print(row)
            table.writerow(vars(row).values())


if __name__ == "__main__":
    main()
