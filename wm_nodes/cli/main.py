"""Entry point of `wm`: finds the subcommand and shows a person's mistakes as one line."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib import import_module

from wm_nodes.errors import UserError
from wm_nodes.graphs.declaration import GraphError, unknown

WRONG = 2
COMMANDS = {
    "launch": "run a graph of nodes: wm launch sim_metaworld task:=window-close-v3",
    "demo": "watch a shipped agent act through the whole graph, and get a report",
    "train": "learn from a recorded log, without ROS",
    "average": "the mean of a run's newest weights, steadier than any of them",
    "collect": "record demonstrations or play into a replay log, without ROS",
    "eval": "success and return of a policy, with confidence intervals",
    "report": "film, plot and figures of a run",
    "replay": "play a logged episode onto a robot's topics: wm replay LOG --episode 3",
    "bench": "measure speeds on this machine",
    "arm": "check an arm's wiring, try its safety filter: wm arm check, wm arm safety",
    "faults": "break everything around the simulated arm and see that it stops",
    "log": "look into a replay log: wm log info LOG",
}


def main(words: Sequence[str] | None = None) -> int:
    """Run the subcommand named on the command line; return its exit code."""
    words = sys.argv[1:] if words is None else list(words)
    if not words or words[0] in ("-h", "--help"):
        print(_help())
        return 0 if words else WRONG
    name, *rest = words
    if name not in COMMANDS:
        print(f"wm: {unknown('command', name, COMMANDS)}", file=sys.stderr)
        return WRONG
    command: Callable[[Sequence[str]], int] = import_module(f"wm_nodes.cli.{name}").run
    try:
        return command(rest)
    except (UserError, GraphError) as error:
        print(f"wm {name}: {error}", file=sys.stderr)
        return WRONG
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # `wm ... | head`
        sys.stderr.close()
        return 0


def _help() -> str:
    rows = "\n".join(f"  {name:8s} {text}" for name, text in COMMANDS.items())
    return f"usage: wm COMMAND ...\n\n{rows}\n\n`wm COMMAND --help` says more."


if __name__ == "__main__":
    sys.exit(main())
