"""`wm arm ...`: check an arm's wiring, test its safety filter, operate it."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module

from wm_nodes.cli.arm import operator
from wm_nodes.cli.arm.operator import CALLS
from wm_nodes.cli.helptext import group_help
from wm_nodes.errors import UserError, unknown

SUBCOMMANDS = {
    "check": "check topics, rates, stamps, joint order and sign of a running arm; suggest fixes",
    "safety": "drive the safety filter with irregular and invalid input, and audit its commands",
    "goal": "set the goal of a running arm: an image file, or its present camera image",
    "demo": "move the simulated arm to goal images; writes a video and a report",
    "speed": "set the speed of a running arm: 5 to 100 percent of its limits",
    "stop": "emergency stop of all running arms, or of that with --ns: latched until clear, then "
    "resume or home",
    "clear": "confirm that the cause of a stop is gone; nothing moves yet",
    "resume": "allow motion again, from new plans",
    "home": "go to the home pose",
    "pause": "stop until resume",
    "reset": "end the episode",
    "recover": "end a protective stop by the driver's services",
    "activate": "switch the driver's controller on",
    "deactivate": "switch the driver's controller off",
}


def run(words: Sequence[str]) -> int:
    """Run `wm arm WORDS`."""
    if words and words[0] in CALLS:
        return operator.run(words[0], words[1:])
    if words and words[0] in SUBCOMMANDS:
        code: int = import_module(f"{__name__}.{words[0]}").run(words[1:])
        return code
    if words and words[0] not in ("-h", "--help"):
        raise UserError(unknown("subcommand", words[0], SUBCOMMANDS))
    print(group_help("arm", SUBCOMMANDS))
    return 0 if words else 2
