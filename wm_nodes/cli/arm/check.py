"""`wm arm check --robot R`: compare the wiring of an arm with its YAML."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from wm_nodes.cli.arguments import parse, require, require_namespace
from wm_nodes.errors import user_errors
from wm_nodes.namespaces import ROBOT


@dataclass(frozen=True)
class Check:
    """Verify topics, rates, clocks, joint order and sign, cameras; suggest a fix for each problem.

    Start the driver (and cameras) first. Motions are tiny and are confirmed before each. Exit code
    1: there is a problem.
    """

    robot: str = "arm_sim"
    """A name of config/robots, or the path of a YAML."""
    ns: str = ROBOT
    """Namespace that the robot node will have."""
    driver_ns: str = ""
    """Namespace of the arm's driver; empty: the YAML's."""
    seconds: float = 3.0
    """Time to receive messages [s]."""
    move: bool = False
    """Also move each joint a little, after a question, to check order and sign."""
    yes: bool = False
    """Do not ask (simulated arm)."""


def run(words: Sequence[str]) -> int:
    """Run `wm arm check WORDS`."""
    options = parse(Check, "arm check", words)
    require("seconds", options.seconds, 1.0, 60.0)
    from wm_nodes.robots.arm.config.arm_config import find_config, read_config
    from wm_nodes.robots.robot import RobotError

    ns = require_namespace("ns", options.ns)
    if options.driver_ns:
        require_namespace("driver-ns", options.driver_ns)
    with user_errors(RobotError):
        config = read_config(find_config(options.robot), options.driver_ns)
    from wm_nodes.checks.arm_bringup.check import ArmCheck

    return ArmCheck(config, ns, options.seconds, options.yes).run(options.move)
