"""Entry point of `wm`: runs the subcommand and prints errors of the user in one line."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib import import_module

from wm_nodes.errors import UserError, unknown
from wm_nodes.graphs.graph import GraphError

FAILED, WRONG = 1, 2  # exit codes: an internal error, an error of the user
COMMANDS = {
    "launch": "run a graph of nodes",
    "demo": "watch a shipped agent act through the whole graph, and get a report",
    "train": "learn from a recorded log, without ROS",
    "pretrain": "learn a model of videos, with which APV begins, from logs without actions",
    "average": "average the newest weights of a run",
    "collect": "record demonstrations or play into a replay log, without ROS",
    "eval": "success and return of a policy, with confidence intervals",
    "study": "learn a set of tasks with the same settings; a table beside blind baselines",
    "compare": "methods over seeds and tasks: a table with intervals, and curves",
    "report": "video, plot and figures of a run",
    "replay": "play a logged episode onto a robot's topics",
    "models": "list the model presets",
    "weights": "list shipped weights and those of the runs here; import checkpoints",
    "bench": "measure speeds on this machine",
    "arm": "check an arm's wiring, test its safety filter, operate it",
    "faults": "inject faults around the simulated arm and check that it stops",
    "log": "inspect and verify a replay log, import and export other formats",
    "completion": "print the script that completes `wm` commands in bash",
}


def main(words: Sequence[str] | None = None) -> int:
    """Run the subcommand named on the command line; return its exit code."""
    words = sys.argv[1:] if words is None else list(words)
    if not words or words[0] in ("-h", "--help"):
        print(_help())
        return 0 if words else WRONG
    if words[0] in ("-V", "--version"):
        from wm_nodes.assets import version

        print(f"wm_nodes {version()}")
        return 0
    name, *rest = words
    if name not in COMMANDS:
        print(f"wm: {unknown('command', name, COMMANDS)}", file=sys.stderr)
        return WRONG
    try:
        command: Callable[[Sequence[str]], int] = import_module(f"wm_nodes.cli.{name}").run
        code = command(rest)
        sys.stdout.flush()
        return code
    except (UserError, GraphError) as error:
        print(f"wm {name}: {error}", file=sys.stderr)
        return WRONG
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # `wm ... | head`
        sys.stderr.close()
        return 0
    except Exception as error:
        from wm_nodes.cli.escaped import one_line

        print(f"wm {name}: {one_line(error, words)}", file=sys.stderr)
        return FAILED


def _help() -> str:
    from wm_nodes.cli.examples import EXAMPLES
    from wm_nodes.cli.helptext import examples, see, table

    options = (("--help", "show this text"), ("--version", "show the version"))
    parts = ["usage: wm COMMAND ...", table("commands", COMMANDS.items(), 14)]
    parts += [table("options", options, 14), examples(EXAMPLES[""])]
    return "\n\n".join([*parts, see("COMMAND")])


if __name__ == "__main__":
    sys.exit(main())
