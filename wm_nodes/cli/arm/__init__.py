"""`wm arm ...`: check an arm's wiring, try its safety filter, operate it."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module

from wm_nodes.cli.arm import operator
from wm_nodes.cli.arm.operator import CALLS
from wm_nodes.cli.helptext import group_help
from wm_nodes.errors import UserError, unknown

SUBCOMMANDS = {
    "check": "look at topics, rates, stamps, joint order and sign of an arm that runs; say how to "
    "mend",
    "safety": "drive the safety filter with irregular and invalid input, and audit its commands",
    "goal": "set the goal of a running arm: an image file, or what it sees now",
    "demo": "the simulated arm goes to goal images; leaves a video and a report",
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


def run(words: Sequence[str]) -> int:
    """Run `wm arm WORDS`."""
    if words and words[0] in CALLS:
        return operator.run(words[0], words[1:])
    if words and words[0] in SUBCOMMANDS:
        found: int = import_module(f"{__name__}.{words[0]}").run(words[1:])
        return found
    if words and words[0] not in ("-h", "--help"):
        raise UserError(unknown("subcommand", words[0], SUBCOMMANDS))
    print(group_help("arm", SUBCOMMANDS))
    return 0 if words else 2
