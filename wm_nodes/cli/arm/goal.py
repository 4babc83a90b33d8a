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
    """Tell an arm that runs where to go: what a picture shows, or what it sees now.

    Exactly one of FILE, --here and --keep.
    """

    picture: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="FILE")] = ""
    """Goal: a PNG or JPEG. Joint states beside it (FILE.json, as --keep writes them) go along."""
    here: bool = False
    """What is seen now becomes the goal (service set_goal_here)."""
    keep: str = ""
    """Write what is seen now to this file, joint states beside it; nothing moves."""
    camera: str = "front"
    """Camera whose picture is kept."""
    ns: str = ""
    """Namespace of the robot's nodes; empty: that of the only robot node that runs."""
    wait_s: float = 10.0
    """How long to wait for a planner, or for an image."""


def run(words: Sequence[str]) -> int:
    """Run `wm arm goal WORDS`."""
    wanted = parse(ArmGoal, "arm goal", words)
    require("wait-s", wanted.wait_s, 0.0, 600.0)
    if sum(map(bool, (wanted.picture, wanted.here, wanted.keep))) != 1:
        raise UserError("wm arm goal: expected one of FILE, --here and --keep FILE.")
    from wm_nodes.ros.goal_client import talking

    given = require_namespace("ns", wanted.ns) if wanted.ns else ""
    ns = namespace_or_only(given, 0.0) or ROBOT  # a planner may run without a robot node
    with talking(ns, wanted.wait_s) as arm:
        if wanted.picture:
            print(f"sending {wanted.picture} until every node has heard it", flush=True)
            arm.send(Path(wanted.picture))
            print(f"{wanted.picture} is the goal")
        elif wanted.here:
            print(arm.here())
        else:
            arm.keep(Path(wanted.keep), wanted.camera)
            print(f"kept in {wanted.keep}: wm arm goal {wanted.keep}, or goal:={wanted.keep}")
    return 0
