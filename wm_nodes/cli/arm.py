"""`wm arm check --robot R`: is an arm wired as its YAML says? `wm arm safety`: try its filter."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from wm_nodes.cli.arguments import parse, require, require_namespace, require_one_of
from wm_nodes.cli.arm_operator import CALLS
from wm_nodes.cli.arm_operator import run as run_operator
from wm_nodes.cli.helptext import group_help
from wm_nodes.errors import UserError, user_errors
from wm_nodes.graphs.declaration import unknown
from wm_nodes.namespaces import ROBOT

SUBCOMMANDS = {
    "check": "look at topics, rates, stamps, joint order and sign of an arm that runs; say how to "
    "mend",
    "safety": "drive the safety filter with irregular and invalid input, and audit its commands",
    "goal": "where an arm that runs is to go: a picture, or what it sees now",
    "demo": "the simulated arm goes to goal pictures; leaves a film and a report",
    "speed": "how fast an arm that runs may move: 5 to 100 percent of its limits",
    "stop": "emergency stop of all arms that run, or of that with --ns: latched until clear, then "
    "resume or home",
    "clear": "the cause of a stop is gone; nothing moves yet",
    "resume": "motion is allowed again, from new plans",
    "home": "go to the home pose",
    "pause": "stop until resume",
    "reset": "end the episode",
    "recover": "end a protective stop by the driver's services",
    "activate": "switch the driver's controller on",
    "deactivate": "switch the driver's controller off",
}


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


@dataclass(frozen=True)
class Check:
    """Verify topics, rates, clocks, joint order and sign, cameras; say how to mend what is wrong.

    Start the driver (and cameras) first. Motions are tiny and asked for before each. Exit code 1:
    something is wrong.
    """

    robot: str = "arm_sim"
    """A name of config/robots, or the path of a YAML."""
    ns: str = ROBOT
    """Namespace that the robot node will have."""
    driver_ns: str = ""
    """Namespace of the arm's driver; empty: the YAML's."""
    seconds: float = 3.0
    """How long to listen."""
    move: bool = False
    """Also move each joint by a little, after asking, to see order and sign."""
    yes: bool = False
    """Do not ask (simulated arm)."""


def run(words: Sequence[str]) -> int:
    """Run `wm arm WORDS`."""
    if words and words[0] == "safety":
        return _safety(parse(Safety, "arm safety", words[1:]))
    if words and words[0] == "check":
        return _check(parse(Check, "arm check", words[1:]))
    if words and words[0] == "goal":
        from wm_nodes.cli.arm_goal import run as run_goal

        return run_goal(words[1:])
    if words and words[0] == "demo":
        from wm_nodes.cli.arm_demo import run as run_demo

        return run_demo(words[1:])
    if words and words[0] == "speed":
        from wm_nodes.cli.arm_speed import run as run_speed

        return run_speed(words[1:])
    if words and words[0] in CALLS:
        return run_operator(words[0], words[1:])
    if words and words[0] not in ("-h", "--help"):
        raise UserError(unknown("subcommand", words[0], SUBCOMMANDS))
    print(group_help("arm", SUBCOMMANDS))
    return 0 if words else 2


def _check(wanted: Check) -> int:
    require("seconds", wanted.seconds, 1.0, 60.0)
    from wm_nodes.robots.arm.config import find_config, read_config
    from wm_nodes.robots.base import RobotError

    ns = require_namespace("ns", wanted.ns)
    if wanted.driver_ns:
        require_namespace("driver-ns", wanted.driver_ns)
    with user_errors(RobotError):
        config = read_config(find_config(wanted.robot), wanted.driver_ns)
    from wm_nodes.arm_check import ArmCheck

    return ArmCheck(config, ns, wanted.seconds, wanted.yes).run(wanted.move)


def _safety(wanted: Safety) -> int:
    require("steps", wanted.steps, 1)
    from wm_nodes.robots.arm.config import find_config, read_config
    from wm_nodes.robots.arm.kinematics import Kinematics
    from wm_nodes.robots.arm.trial import INTERFACES, SHARES, run_trial
    from wm_nodes.robots.base import RobotError

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
