"""`wm arm safety`: test the safety filter with targets that would break limits, and audit it."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from wm_nodes.cli.arguments import parse, require, require_one_of
from wm_nodes.errors import user_errors

if TYPE_CHECKING:
    from wm_nodes.checks.safety_trial.limit_audit import Audit
    from wm_nodes.robots.arm.config.arm_config import ArmConfig

SHOWN = ("robot", "interface", "commands", "steps", "violations")


@dataclass(frozen=True)
class Safety:
    """Feed the safety filter targets that would break limits, at irregular times; audit its
    commands.

    Random, adversarial and realistic targets, with late calls, bursts, old targets, clock steps and
    invalid values among them. Exit code 1: a limit was broken.
    """

    robots: tuple[str, ...] = ("arm_sim", "ur5e", "fr3", "gen3", "jaco2")
    """Names of config/robots, or paths of YAML files."""
    steps: int = 1_000_000
    """Steps in all, divided among the robots."""
    interfaces: tuple[str, ...] = ("position", "velocity", "trajectory")
    """Command interfaces; the steps are divided among them."""
    seed: int = 0
    """Seed of the commands."""
    rate_hz: float = 0.0
    """Control rate; 0: each robot's own."""
    out: Path | None = None
    """Write OUT.json and OUT.csv."""


def run(words: Sequence[str]) -> int:
    """Run `wm arm safety WORDS`."""
    options = parse(Safety, "arm safety", words)
    require("steps", options.steps, 1)
    from wm_nodes.checks.safety_trial.trial import INTERFACES, run_trial
    from wm_nodes.robots.arm.config.arm_config import find_config, read_config
    from wm_nodes.robots.arm.geometry.kinematics import Kinematics
    from wm_nodes.robots.robot import RobotError

    for interface in options.interfaces:
        require_one_of("interfaces", interface, INTERFACES)
    rows: list[dict[str, Any]] = []
    runs = [(name, interface) for name in options.robots for interface in options.interfaces]
    for index, (name, interface) in enumerate(runs):
        with user_errors(RobotError):
            config = read_config(find_config(name))
            hand = Kinematics(config.model, config.limits.joints, config.hand)
        rate_hz = options.rate_hz or config.rate_hz
        steps = options.steps // len(runs)
        steps += options.steps % len(runs) if index == 0 else 0
        audits = run_trial(
            config.limits, hand, config.home,
            rate_hz=rate_hz, steps=steps, seed=options.seed, interface=interface,
        )  # fmt: skip
        for kind, audit in audits.items():
            if audit.steps:
                rows.append(_row(config, rate_hz, interface, kind, audit))
                print("  ".join(f"{name} {rows[-1][name]}" for name in SHOWN), flush=True)
    total = {name: sum(row[name] for row in rows) for name in ("steps", "violations")}
    print(f"{total['violations']} violations in {total['steps']} steps")
    if options.out is not None:
        _save(options.out, total | {"seed": options.seed, "rows": rows}, rows)
    return 1 if total["violations"] else 0


def _row(
    config: ArmConfig, rate_hz: float, interface: str, kind: str, audit: Audit
) -> dict[str, Any]:
    """Return the figures of one kind of target on one robot and interface."""
    from wm_nodes.checks.safety_trial.trial import SHARES

    times_us = np.array(audit.seconds) * 1e6
    return {
        "robot": config.robot,
        "joints": len(config.limits.joints),
        "rate_hz": rate_hz,
        "interface": interface,
        "commands": kind,
        "steps": audit.steps,
        "violations": sum(audit.violations.values()),
        **{f"most_{share}": _rounded(audit.worst.get(share)) for share in SHARES},
        "cpu_us_p50": round(float(np.percentile(times_us, 50)), 1),
        "cpu_us_p99": round(float(np.percentile(times_us, 99)), 1),
        "interventions": sum(audit.interventions.values()),
    }


def _save(out: Path, content: dict[str, Any], rows: Sequence[dict[str, Any]]) -> None:
    """Write OUT.json and OUT.csv."""
    out.parent.mkdir(parents=True, exist_ok=True)
    out.with_suffix(".json").write_text(json.dumps(content, indent=2) + "\n")
    with out.with_suffix(".csv").open("w", newline="") as file:
        table = csv.DictWriter(file, fieldnames=list(rows[0]))
        table.writeheader()
        table.writerows(rows)


def _rounded(share: float | None) -> float | None:
    return None if share is None else round(share, 6)
