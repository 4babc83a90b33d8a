"""`wm arm speed PERCENT`: how fast an arm that runs may move."""

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
    """Keep all speeds of an arm that runs below a share of their limits, until the node ends.

    A lower speed brakes within the limits of acceleration and jerk, a higher one counts at once.
    Stopping stays as strong as ever. Exit code 1: it was refused.
    """

    percent: Annotated[float, tyro.conf.Positional, tyro.conf.arg(metavar="PERCENT")]
    """5 to 100; 100: the limits of the robot's YAML."""
    ns: str = ""
    """Namespace of the robot node; empty: the only one that runs."""
    wait_s: float = 10.0
    """How long to wait for a robot node."""


def run(words: Sequence[str]) -> int:
    """Run `wm arm speed WORDS`."""
    given = parse(ArmSpeed, "arm speed", words)
    require("percent", given.percent, LEAST, MOST)
    require("wait-s", given.wait_s, 0.0, 600.0)
    from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue
    from rcl_interfaces.srv import SetParameters

    value = ParameterValue(type=ParameterType.PARAMETER_DOUBLE, double_value=given.percent / MOST)
    request = SetParameters.Request(parameters=[Parameter(name="speed_scale", value=value)])
    call = ServiceCall(f"{NODE}/set_parameters", SetParameters, request)
    response = ask(given.ns, given.wait_s, call)
    (result,) = response.results
    print(result.reason if result.reason else f"speed scale is {given.percent:g} %")
    return 0 if result.successful else 1
