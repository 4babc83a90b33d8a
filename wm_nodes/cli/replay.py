"""`wm replay LOG --episode N`: a logged episode on a robot's topics, with its timing."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from wm_nodes.cli.arguments import parse, require, require_namespace
from wm_nodes.cli.paths import find_log
from wm_nodes.errors import UserError
from wm_nodes.graphs.launch.environment import network_environment
from wm_nodes.namespaces import ROBOT


@dataclass(frozen=True)
class Replay:
    """Play a logged episode onto the topics of a robot, with its stamps and its timing.

    `wm launch replay` adds nodes that plan from it, and a recorder."""

    log: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="LOG")]
    """Folder of the log, or a run; it may be in use."""
    episode: int = -1
    """Episode to play, from 0; -1: the newest."""
    rate: float = 1.0
    """Speed relative to the recording; 0: without any pause."""
    answers: tuple[Literal["recorded", "plan"], ...] = ()
    """Wait for these: recorded (the recorder, at the episode's start), plan (at each
    observation)."""
    as_camera: bool = False
    """Publish CAMERA/image too: no camera node is needed then."""
    restamp: bool = False
    """Stamp with the present time, not with the logged one."""
    wait_s: float = 10.0
    """Start when `step` has a subscriber, at the latest after this time [s]."""
    ns: str = ROBOT
    """Namespace of the topics."""
    network: Literal["local", "subnet"] = "local"
    """local: within this computer only; subnet: also to other computers."""


def run(words: Sequence[str]) -> int:
    """Run `wm replay WORDS`."""
    options = parse(Replay, "replay", words)
    require("rate", options.rate, 0.0, 1000.0)
    require("wait-s", options.wait_s, 0.0)
    ns = require_namespace("ns", options.ns)
    if find_spec("rclpy") is None:
        raise UserError("ROS 2 is missing (no rclpy). Source your ROS 2, or run `make setup`.")
    os.environ.update(network_environment(options.network))

    from rclpy.parameter import Parameter

    from wm_nodes.nodes.replay import ReplayNode
    from wm_nodes.ros import spin

    names = "episode rate as_camera restamp wait_s"
    parameters: dict[str, Any] = {name: getattr(options, name) for name in names.split()}
    parameters["log"] = str(find_log(options.log))
    if options.answers:
        parameters["answers"] = list(options.answers)
    overrides = [Parameter(name, value=value) for name, value in parameters.items()]
    return spin.run(partial(ReplayNode, namespace=ns, parameter_overrides=overrides), [])
