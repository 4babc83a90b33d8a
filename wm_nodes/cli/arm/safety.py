"""`wm arm safety`: try the safety filter with targets made to break limits, and audit it."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from wm_nodes.cli.arguments import parse, require, require_one_of
from wm_nodes.errors import user_errors


@dataclass(frozen=True)
class Safety:
    """Give the safety filter targets made to break limits at irregular times; audit its commands.

    Random, adversarial and recorded-like targets, with late calls, bursts, old targets, clock steps
    and invalid values among them. Exit code 1: a limit was broken.
    """

    robots: tuple[str, ...] = ("arm_sim", "ur5e", "fr3", "gen3", "jaco2")
    """Names of config/robots, or paths of YAML files."""
    steps: int = 1_000_000
    """Steps in all, shared by the robots."""
    interfaces: tuple[str, ...] = ("position", "velocity", "trajectory")
    """Command interfaces that share the steps."""
    seed: int = 0
    """Of the commands."""
    rate_hz: float = 0.0
    """Control rate; 0: each robot's own."""
    out: Path | None = None
    """Write OUT.json and OUT.csv."""


def run(words: Sequence[str]) -> int:
    """Run `wm arm safety WORDS`."""
    wanted = parse(Safety, "arm safety", words)
    require("steps", wanted.steps, 1)
    from wm_nodes.checks.safety_trial.trial import INTERFACES, SHARES, run_trial
    from wm_nodes.robots.arm.config.arm_config import find_config, read_config
    from wm_nodes.robots.arm.geometry.kinematics import Kinematics
    from wm_nodes.robots.robot import RobotError

    for interface in wanted.interfaces:
        require_one_of("interfaces", interface, INTERFACES)
    rows: list[dict[str, Any]] = []
    broken = 0
    runs = [(name, interface) for name in wanted.robots for interface in wanted.interfaces]
    for index, (name, interface) in enumerate(runs):
        with user_errors(RobotError):
            config = read_config(find_config(name))
            hand = Kinematics(config.model, config.limits.joints, config.hand)
        steps = wanted.steps // len(runs)
        steps += wanted.steps % len(runs) if index == 0 else 0
        found = run_trial(
            config.limits, hand, config.home,
            rate_hz=wanted.rate_hz or config.rate_hz, steps=steps, seed=wanted.seed,
            interface=interface,
        )  # fmt: skip
        for kind, audit in found.items():
            if not audit.steps:
                continue
            times = np.array(audit.seconds) * 1e6
            broken += sum(audit.violations.values())
            rows.append(
                {
                    "robot": config.robot,
                    "joints": len(config.limits.joints),
                    "rate_hz": wanted.rate_hz or config.rate_hz,
                    "interface": interface,
                    "commands": kind,
                    "steps": audit.steps,
                    "violations": sum(audit.violations.values()),
                    **{f"most_{k}": _rounded(audit.worst.get(k)) for k in SHARES},
                    "cpu_us_p50": round(float(np.percentile(times, 50)), 1),
                    "cpu_us_p99": round(float(np.percentile(times, 99)), 1),
                    "interventions": sum(audit.interventions.values()),
                }
            )
            shown = {
                k: rows[-1][k] for k in ("robot", "interface", "commands", "steps", "violations")
            }
            print("  ".join(f"{k} {v}" for k, v in shown.items()), flush=True)
    done = sum(row["steps"] for row in rows)
    print(f"{broken} violations in {done} steps")
    if wanted.out is not None:
        wanted.out.parent.mkdir(parents=True, exist_ok=True)
        total = {"steps": done, "violations": broken, "seed": wanted.seed, "rows": rows}
        wanted.out.with_suffix(".json").write_text(json.dumps(total, indent=2) + "\n")
        with wanted.out.with_suffix(".csv").open("w", newline="") as file:
            table = csv.DictWriter(file, fieldnames=list(rows[0]))
            table.writeheader()
            table.writerows(rows)
    return 1 if broken else 0


def _rounded(share: float | None) -> float | None:
    return None if share is None else round(share, 6)
