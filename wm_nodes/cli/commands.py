"""Every command with its arguments, as a table: for completion and for tests of help."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module

from wm_nodes.cli.arm_operator import CALLS
from wm_nodes.cli.options import Option, options

CLASSES: Mapping[str, str] = {
    "demo": "demo:Demo",
    "train": "train:Train",
    "average": "average:Average",
    "collect": "collect:Collect",
    "eval": "eval:Eval",
    "study tasks": "study:Tasks",
    "report": "report:Report",
    "replay": "replay:Replay",
    "models": "models:Models",
    "weights": "weights:Listing",
    "weights import": "weights_import:Import",
    "bench": "bench:Bench",
    "faults": "faults:Faults",
    "completion": "completion:Completion",
    "arm check": "arm:Check",
    "arm safety": "arm:Safety",
    "arm goal": "arm_goal:ArmGoal",
    "arm demo": "arm_demo:ArmDemo",
    "arm speed": "arm_speed:ArmSpeed",
    **{f"arm {name}": "arm_operator:OperatorCall" for name in CALLS},
    "log info": "log:Info",
    "log show": "look:Show",
    "log stats": "look:Stats",
    "log verify": "durability:Verify",
    "log torture": "durability:Torture",
    "log sweep": "durability:Sweep",
    "log archive": "archive:ArchiveWords",
    "log import": "transfer:Import",
    "log export": "transfer:Export",
}


def options_of(command: str) -> tuple[Option, ...]:
    """Return the options of a command, such as `eval` or `log info`."""
    module, _, name = CLASSES[command].partition(":")
    return options(getattr(import_module(f"wm_nodes.cli.{module}"), name))
