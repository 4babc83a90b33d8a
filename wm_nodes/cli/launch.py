"""`wm launch GRAPH name:=value ...`: run a graph without the `ros2` command."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from wm_nodes.graphs import NAMES, find_graph
from wm_nodes.graphs.declaration import Argument, Graph

USAGE = "usage: wm launch GRAPH [name:=value ...] [--show-args]"


def run(words: Sequence[str]) -> int:
    """Launch, or show what can be launched and with which arguments."""
    graph_name = next((word for word in words if not word.startswith("-")), None)
    if graph_name is None:
        print(overview())
        return 0 if words else 2
    graph = find_graph(graph_name)
    if {"--show-args", "-s", "--help", "-h"} & set(words):
        print(show_arguments(graph))
        return 0
    from wm_nodes.graphs.supervise import launch

    return launch(graph, [word for word in words if word != graph_name])


def overview() -> str:
    """Return the list of graphs."""
    rows = "\n".join(f"  {name:14s} {find_graph(name).description}" for name in NAMES)
    return f"{USAGE}\n\n{rows}\n\n--show-args lists a graph's arguments."


def show_arguments(graph: Graph) -> str:
    """Return every argument with its description, range and default."""
    head = f"wm launch {graph.name} [name:=value ...]\n{graph.description}\n"
    return "\n".join([head, *map(_shown, graph.arguments)])


def _shown(argument: Argument) -> str:
    right = "" if isinstance(argument.default, str) and not argument.choices else argument.right()
    fixed = " Stays as it is when a run goes on." if argument.fixed else ""
    text = f"{argument.description}{fixed} {right and right[0].upper() + right[1:] + '.'}"
    body = textwrap.fill(
        text.strip(), 92, initial_indent="    ", subsequent_indent="    ", break_on_hyphens=False
    )
    return f"{argument.name}:={argument.shown() or chr(39) * 2}\n{body}"
