"""Follow a moving point with 100 ms of injected delay, with and without delay compensation.

python docs/results/arm/delay.py     # writes delay.csv beside it
"""

from __future__ import annotations

import csv
from contextlib import closing
from pathlib import Path

import numpy as np

from docs.results.arm.lag_meter import LagMeter, PendingActions
from wm_nodes.robots.arm.safety.limits import Floats
from wm_nodes.robots.arm.sim.arm_sim import SimulatedArm

CENTRE, RADIUS_M, TURN_S = np.array([0.4, 0.0, 0.2]), 0.06, 4.0
GAINS_PER_S = (2.0, 4.0, 6.0, 8.0)
SECONDS = 20.0


def target_position(t: float) -> Floats:
    """Return the target position of the end effector at time t [s]: on a circle above the table."""
    angle = 2 * np.pi * t / TURN_S
    return CENTRE + RADIUS_M * np.array([np.cos(angle), np.sin(angle), 0.0])


def follow(gain: float, delay_s: float, compensated: bool) -> tuple[float, float, float]:
    """Return (root mean square error [mm], largest [mm], measured lag [ms]) after two seconds."""
    with closing(SimulatedArm("goal", render="none", time_limit=10_000, action_repeat=1)) as arm:
        arm.reset(0)
        arm.switches.actuation_delay_s = delay_s
        period, pending = arm.spec.control_period_s, PendingActions()
        meter, errors = LagMeter(period), []
        for index in range(round(SECONDS / period)):
            now = arm._driver.now_s()
            end_effector = arm.world.state().end_effector
            lag = meter.measure()
            lead_s = lag if compensated else 0.0
            pending_shift = pending.displacement(now - lead_s, now) if lead_s else np.zeros(0)
            predicted = end_effector + pending_shift[:3] if pending_shift.size else end_effector
            due = now + lead_s
            speed = (target_position(due + period) - target_position(due)) / period
            target_velocity = speed + gain * (target_position(due) - predicted)
            observation = arm.act(np.clip(target_velocity, -0.2, 0.2))
            pending.sent(observation.executed, now, period)
            measured = arm.supervisor.measured
            assert measured is not None  # the arm has moved
            meter.put(arm.supervisor.filter.x[:6].copy(), measured[:6].copy())
            if index * period > 4.0:
                errors.append(
                    np.linalg.norm(
                        arm.world.state().end_effector - target_position(arm._driver.now_s())
                    )
                )
    return (
        1e3 * float(np.sqrt(np.mean(np.square(errors)))), 1e3 * float(np.max(errors)), 1e3 * lag
    )  # fmt: skip


def main() -> None:
    rows = []
    for gain in GAINS_PER_S:
        for delay_s in (0.0, 0.1):
            for compensated in (False, True):
                rms, worst, lag = follow(gain, delay_s, compensated)
                rows.append(
                    {
                        "gain_per_s": gain,
                        "injected_delay_ms": round(1e3 * delay_s),
                        "planned_from": "ahead" if compensated else "seen",
                        "rms_error_mm": round(rms, 1),
                        "largest_error_mm": round(worst, 1),
                        "measured_lag_ms": round(lag),
                    }
                )
                print(rows[-1], flush=True)
    with Path(__file__).with_name("delay.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, fieldnames=list(rows[0]))
        table.writeheader()
        table.writerows(rows)


if __name__ == "__main__":
    main()
