"""`wm arm speed PERCENT`: set the highest speed of a running arm."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import tyro

from wm_nodes.cli.arguments import parse, require
from wm_nodes.cli.arm.operator import ServiceCall, ask

LEAST, MOST = 5.0, 100.0
NODE = "robot"  # name of the robot node, whose parameter it is


@dataclass(frozen=True, kw_only=True)
class ArmSpeed:
    """Keep all speeds of a running arm below a share of their limits, until the node ends.

    To a lower speed the arm brakes within its limits of acceleration and jerk; a higher one applies
    at once. Stopping is not weakened. Exit code 1: it was refused.
    """

    percent: Annotated[float, tyro.conf.Positional, tyro.conf.arg(metavar="PERCENT")]
    """5 to 100; 100: the limits of the robot's YAML."""
    ns: str = ""
    """Namespace of the robot node; empty: the only running one."""
    wait_s: float = 10.0
    """How long to wait for a robot node."""


def run(words: Sequence[str]) -> int:
    """Run `wm arm speed WORDS`."""
    options = parse(ArmSpeed, "arm speed", words)
    require("percent", options.percent, LEAST, MOST)
    require("wait-s", options.wait_s, 0.0, 600.0)
    from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue
    from rcl_interfaces.srv import SetParameters

    value = ParameterValue(type=ParameterType.PARAMETER_DOUBLE, double_value=options.percent / MOST)
    request = SetParameters.Request(parameters=[Parameter(name="speed_scale", value=value)])
    call = ServiceCall(f"{NODE}/set_parameters", SetParameters, request)
    response = ask(options.ns, options.wait_s, call)
    (result,) = response.results
    print(result.reason if result.reason else f"speed scale is {options.percent:g} %")
    return 0 if result.successful else 1
