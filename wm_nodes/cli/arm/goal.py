"""`wm arm goal FILE`: where an arm that runs is to go next, or what it sees now, as a file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from wm_nodes.cli.arguments import parse, require, require_namespace
from wm_nodes.cli.running_robots import namespace_or_only
from wm_nodes.errors import UserError
from wm_nodes.namespaces import ROBOT


@dataclass(frozen=True)
class ArmGoal:
    """Set the goal of a running arm: an image file, or the image that its camera sees now.

    Exactly one of FILE, --here and --keep.
    """

    image: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="FILE")] = ""
    """Goal: a PNG or JPEG. Joint states beside it (FILE.json, as of --keep) are sent too."""
    here: bool = False
    """The present image becomes the goal (service set_goal_here)."""
    keep: str = ""
    """Write the present image to this file, joint states beside it; nothing moves."""
    camera: str = "front"
    """Camera whose image is kept."""
    ns: str = ""
    """Namespace of the robot's nodes; empty: that of the only robot node that runs."""
    wait_s: float = 10.0
    """How long to wait for a planner, or for an image."""


def run(words: Sequence[str]) -> int:
    """Run `wm arm goal WORDS`."""
    wanted = parse(ArmGoal, "arm goal", words)
    require("wait-s", wanted.wait_s, 0.0, 600.0)
    if sum(map(bool, (wanted.image, wanted.here, wanted.keep))) != 1:
        raise UserError("wm arm goal: expected one of FILE, --here and --keep FILE.")
    from wm_nodes.ros.goal_client import goal_client

    given = require_namespace("ns", wanted.ns) if wanted.ns else ""
    ns = namespace_or_only(given, 0.0) or ROBOT  # a planner may run without a robot node
    with goal_client(ns, wanted.wait_s) as arm:
        if wanted.image:
            print(f"sending {wanted.image} until every node has received it", flush=True)
            arm.send(Path(wanted.image))
            print(f"{wanted.image} is the goal")
        elif wanted.here:
            print(arm.here())
        else:
            arm.keep(Path(wanted.keep), wanted.camera)
            print(f"kept in {wanted.keep}: wm arm goal {wanted.keep}, or goal:={wanted.keep}")
    return 0
