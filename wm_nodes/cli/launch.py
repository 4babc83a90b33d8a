"""`wm launch GRAPH name:=value ...`: run a graph without the `ros2` command."""

from __future__ import annotations

from collections.abc import Sequence

from wm_nodes.cli.examples import EXAMPLES
from wm_nodes.cli.helptext import examples, table
from wm_nodes.graphs import NAMES, find_graph
from wm_nodes.graphs.graph import Argument, Graph, GraphError

USAGE = "usage: wm launch GRAPH [name:=value ...] [--show-args]"


def run(words: Sequence[str]) -> int:
    """Launch a graph, or show the graphs or the arguments of one."""
    graph_name = next((word for word in words if not word.startswith("-")), None)
    if graph_name is None:
        print(overview())
        return 0 if words else 2
    graph = find_graph(graph_name)
    if {"--show-args", "-s", "--help", "-h"} & set(words):
        print(show_arguments(graph))
        return 0
    from wm_nodes.graphs.launch.supervisor import launch

    return launch(graph, [word for word in words if word != graph_name])


def overview() -> str:
    """Return the list of graphs."""
    graphs = table("graphs", ((name, _description(name)) for name in NAMES), 18)
    more = "`wm launch GRAPH --show-args` lists a graph's arguments."
    return "\n\n".join([USAGE, graphs, examples(EXAMPLES["launch"]), more])


def _description(name: str) -> str:
    try:
        return find_graph(name).description
    except GraphError as error:  # a broken file of one graph does not hide the others
        return f"BROKEN: {error}"


def show_arguments(graph: Graph) -> str:
    """Return every argument with its description, range and default."""
    rows = (
        (f"{argument.name}:={argument.shown()}", _text(argument)) for argument in graph.arguments
    )
    usage = f"usage: wm launch {graph.name} [name:=value ...]"
    return "\n\n".join([usage, graph.description, table("arguments", rows)])


def _text(argument: Argument) -> str:
    right = "" if isinstance(argument.default, str) and not argument.choices else argument.right()
    fixed = " Cannot change when a run is resumed." if argument.fixed else ""
    text = f"{argument.description}{fixed} {right and right[0].upper() + right[1:] + '.'}"
    return text.strip()
