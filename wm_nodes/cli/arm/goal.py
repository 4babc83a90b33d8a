"""`wm arm goal FILE`: set the goal of a running arm, or keep its present image as a file."""

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
    options = parse(ArmGoal, "arm goal", words)
    require("wait-s", options.wait_s, 0.0, 600.0)
    if sum(map(bool, (options.image, options.here, options.keep))) != 1:
        raise UserError("goal: got none or several, expected one of FILE, --here and --keep FILE.")
    from wm_nodes.ros.goal_client import goal_client

    ns = require_namespace("ns", options.ns) if options.ns else ""
    ns = namespace_or_only(ns, 0.0) or ROBOT  # a planner may run without a robot node
    with goal_client(ns, options.wait_s) as arm:
        if options.image:
            print(f"sending {options.image} until every node has received it", flush=True)
            arm.send(Path(options.image))
            print(f"{options.image} is the goal")
        elif options.here:
            print(arm.here())
        else:
            arm.keep(Path(options.keep), options.camera)
            print(f"kept in {options.keep}: wm arm goal {options.keep}, or goal:={options.keep}")
    return 0
