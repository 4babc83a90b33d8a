"""Table of every command with its options: for completion and for tests of the help texts."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module

from wm_nodes.cli.arm.operator import CALLS
from wm_nodes.cli.options import Option, dataclass_options

CLASSES: Mapping[str, str] = {
    "demo": "demo:Demo",
    "train": "train:Train",
    "pretrain": "pretrain:Pretrain",
    "average": "average:Average",
    "collect": "collect:Collect",
    "eval": "eval:Eval",
    "study tasks": "study:Tasks",
    "compare": "compare:Compare",
    "report": "report:Report",
    "replay": "replay:Replay",
    "models": "models:Models",
    "models show": "models:Show",
    "weights": "weights:Listing",
    "weights import": "weights_import:Import",
    "bench": "bench:Bench",
    "faults": "faults:Faults",
    "completion": "completion:Completion",
    "arm check": "arm.check:Check",
    "arm safety": "arm.safety:Safety",
    "arm goal": "arm.goal:ArmGoal",
    "arm demo": "arm.demo:ArmDemo",
    "arm speed": "arm.speed:ArmSpeed",
    **{f"arm {name}": "arm.operator:OperatorCall" for name in CALLS},
    "log info": "log.info:Info",
    "log show": "log.show:Show",
    "log stats": "log.show:Stats",
    "log verify": "log.durability:Verify",
    "log torture": "log.durability:Torture",
    "log sweep": "log.durability:Sweep",
    "log archive": "log.archive:ArchiveOptions",
    "log import": "log.transfer:Import",
    "log export": "log.transfer:Export",
}


def options_of(command: str) -> tuple[Option, ...]:
    """Return the options of a command, such as `eval` or `log info`."""
    module, _, name = CLASSES[command].partition(":")
    return dataclass_options(getattr(import_module(f"wm_nodes.cli.{module}"), name))
