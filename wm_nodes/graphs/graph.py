"""What a graph is: its arguments, its nodes, and how a wrong argument is refused.

A graph is data. `supervisor.py` runs it as plain processes and `ros_launch.py` turns it into
launch_ros actions, so both have the same arguments, nodes, parameters and restarts.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from wm_nodes import namespaces
from wm_nodes.errors import closest, unknown
from wm_nodes.robots import environments

Value = bool | int | float | str
Parameter = Value | list[str]
CRASHES, CRASH_WINDOW_S = 5, 60.0  # more crashes of one node than this end the run
USER_ERROR = 2  # exit code of a node that refuses its parameters
NOT_NAME = re.compile(r"\W", re.ASCII)  # cannot be in the name of a node
TRUE, FALSE = ("true", "1", "yes", "on"), ("false", "0", "no", "off")


class GraphError(ValueError):
    """A mistake of the user who launches: one line with what, got and expected."""


@dataclass(frozen=True)
class Argument:
    """One `name:=value`. Its type is that of the default.

    `fixed` arguments belong to the run: a resumed run keeps them and refuses others. `namespace`:
    the value is a ROS namespace. whole: (value, folder that relative paths are in) -> the value
    with absolute paths; None: it has none. `several`: one or more values, with commas between.
    """

    name: str
    default: Value
    description: str
    choices: tuple[str, ...] = ()
    low: float | None = None
    high: float | None = None
    fixed: bool = False
    namespace: bool = False
    whole: Callable[[str, Path], str] | None = None
    several: bool = False

    def parse(self, text: Value) -> Value:
        """Return the value that `text` stands for, or refuse it."""
        word = str(text).strip()
        if self.several:
            word = ",".join(each.strip() for each in word.split(","))
        try:
            value = self._convert(word)
        except ValueError:
            raise GraphError(self._wrong(word)) from None
        if self.choices and not {*self._words(value)} <= {*self.choices}:
            raise GraphError(self._wrong(word))
        if self.namespace and word != self.default and not namespaces.legal(word):
            raise GraphError(namespaces.refusal(self.name, word))
        if isinstance(value, (int, float)) and not self._in_range(value):
            raise GraphError(self._wrong(word))
        return value

    def right(self) -> str:
        """Describe the values that are accepted, in a few words."""
        if isinstance(self.default, bool):
            return "true or false"
        if self.choices:
            more = ", or several of them, with commas between" if self.several else ""
            return "one of " + ", ".join(self.choices) + more
        if isinstance(self.default, str):
            return "text"
        kind = "a whole number" if isinstance(self.default, int) else "a number"
        bounds = [f"from {self.low}"] if self.low is not None else []
        bounds += [f"to {self.high}"] if self.high is not None else []
        return " ".join([kind, *bounds])

    def shown(self) -> str:
        """Return the default as it would be typed."""
        return show(self.default)

    def _words(self, value: Value) -> list[Value]:
        return [*str(value).split(",")] if self.several else [value]

    def _convert(self, word: str) -> Value:
        if isinstance(self.default, bool):
            if word.lower() not in TRUE + FALSE:
                raise ValueError
            return word.lower() in TRUE
        return type(self.default)(word)

    def _in_range(self, value: float) -> bool:
        above = self.low is None or value >= self.low
        return above and (self.high is None or value <= self.high)

    def _wrong(self, word: str) -> str:
        if len(self.choices) <= 8:
            return f"{self.name}: got {word!r}, expected {self.right()}."
        near = closest(word, self.choices) or list(self.choices[:3])
        return (
            f"{self.name}: got {word!r}, expected one of {len(self.choices)} names (--show-args). "
            f"Closest: {', '.join(near)}."
        )


Values = Mapping[str, Value]


def own_namespace(values: Values, pushed: str) -> dict[str, str]:
    """Return the namespaces of a graph by argument, absolute: a relative `ns` is below the pushed
    one. A graph without that argument is in the default one."""
    namespace = str(values.get("ns", namespaces.ROBOT))
    return {"ns": namespaces.absolute(namespace, pushed or namespaces.ROOT)}


@dataclass(frozen=True)
class NodeSpec:
    """One node process.

    executable: the console script in this package (its module has the same name).
    namespace: values -> its absolute namespace.
    parameters: values -> ROS parameters. condition: values -> whether it runs at all.
    restart: a crash starts it again; exit codes 0 and 2 (a user's mistake) never do.
    on_exit: "shutdown" ends the graph when the node ends with 0 (the run is over); the others have
    `grace_s` seconds to end by themselves first (a report takes a while).
    each: an argument of several values, of each of which a node of this kind is started with that
    value; "": one node. ros_name: its name in the ROS graph; "": the executable's own.
    per_environment: with `envs` above 1 there is one for each, in a namespace of its own below the
    node's: its parameters are those of the values with `env`, its number. `peers`: how many; a node
    with on_exit "shutdown" ends the graph when it and all its peers have ended with 0.
    stop_rank: nodes of rank 0 stop first, then 1, then 2; within `stop_s` seconds each rank.
    shown: its output goes to the terminal; of the others only errors do.
    """

    name: str
    executable: str
    parameters: Callable[[Values], Mapping[str, Parameter]] = lambda values: {}
    condition: Callable[[Values], bool] = lambda values: True
    namespace: Callable[[Values], str] = lambda values: str(values["ns"])
    restart: bool = True
    on_exit: Literal["nothing", "shutdown"] = "nothing"
    grace_s: float = 0.0
    stop_rank: int = 1
    threads: Callable[[int], int] = lambda cores: 1
    nice: int = 0
    shown: bool = False
    each: str = ""
    ros_name: str = ""
    per_environment: bool = False
    peers: int = 1

    @property
    def module(self) -> str:
        """Return the module that runs it; `executable` may name one outside this package."""
        return self.executable if "." in self.executable else f"wm_nodes.nodes.{self.executable}"

    def copies(self, values: Values) -> tuple[NodeSpec, ...]:
        """Return this node, one of it for each environment, or one for each of several values of
        the argument `each`."""
        count = int(values.get("envs", 1)) if self.per_environment else 1
        if count > 1:
            return tuple(self._of_environment(number, count) for number in range(count))
        words = str(values.get(self.each, "")).split(",")
        return tuple(map(self._of_value, words)) if len(words) > 1 else (self,)

    def _of_environment(self, number: int, count: int) -> NodeSpec:
        place = environments.namespace(number, count)
        return replace(
            self,
            name=f"{self.name}_{place}",
            parameters=lambda values: self.parameters({**values, "env": number}),
            namespace=lambda values: namespaces.absolute(place, self.namespace(values)),
            peers=count,
        )

    def _of_value(self, word: str) -> NodeSpec:
        name, own = f"{self.name}_{NOT_NAME.sub('_', word)}", {self.each: word}
        return replace(
            self, name=name, ros_name=name, parameters=lambda v: self.parameters({**v, **own})
        )


@dataclass(frozen=True)
class Graph:
    """Arguments and nodes of one launch, in data-flow order.

    namespaces: values, namespace pushed by a launch file ("": none) -> the absolute namespace of
    each argument that is one. owns: values -> the arguments whose namespaces are for one launch.
    moves: values -> may it take other namespaces while another graph has them?
    implies: arguments that were chosen -> others that follow from them, unless chosen too.
    resolve: all arguments -> the same with defaults that depend on others filled in. GraphError:
    two of them do not go together.
    """

    name: str
    description: str
    arguments: tuple[Argument, ...]
    nodes: tuple[NodeSpec, ...]
    check: Callable[[Values], None] = field(default=lambda values: None)
    namespaces: Callable[[Values, str], Mapping[str, str]] = own_namespace
    owns: Callable[[Values], tuple[str, ...]] = field(default=lambda values: ("ns",))
    moves: Callable[[Values], bool] = field(default=lambda values: True)
    implies: Callable[[Values], dict[str, Value]] = field(default=lambda chosen: {})
    resolve: Callable[[Values], dict[str, Value]] = field(default=dict)
    continues: tuple[str, ...] = ()  # graphs whose runs this one goes on with

    def defaults(self) -> dict[str, Value]:
        """Return every argument at its default."""
        return {argument.name: argument.default for argument in self.arguments}

    def parse(self, texts: Mapping[str, Value]) -> dict[str, Value]:
        """Return the arguments with their types; refuse unknown names and wrong values."""
        known = {argument.name: argument for argument in self.arguments}
        for name in texts:
            if name not in known:
                raise GraphError(unknown("argument", name, known))
        return {name: known[name].parse(text) for name, text in texts.items()}

    def whole(self, values: Values, base: Path) -> dict[str, Value]:
        """Return the arguments with absolute paths; relative ones are in the folder `base`."""
        paths = {each.name: each.whole for each in self.arguments if each.whole is not None}
        return {
            name: paths[name](str(value), base) if name in paths else value
            for name, value in values.items()
        }

    def running(self, values: Values) -> tuple[NodeSpec, ...]:
        """Return the nodes that these arguments start."""
        chosen = (node for node in self.nodes if node.condition(values))
        return tuple(copy for node in chosen for copy in node.copies(values))

    def task(self, values: Values) -> str:
        """Return the task that all nodes have; "" where none has one. GraphError: they differ."""
        running = {node.name: node.parameters(values) for node in self.running(values)}
        tasks = {name: str(own["task"]) for name, own in running.items() if "task" in own}
        if len(set(tasks.values())) > 1:
            differing = ", ".join(f"{name} {task!r}" for name, task in tasks.items())
            raise GraphError(
                f"task: the nodes of graph {self.name!r} got {differing}, expected one task. Let "
                "them all read the robot node's parameters (GraphRobot.robot)."
            )
        return next(iter(tasks.values()), "")


def show(value: Value) -> str:
    """Return a value as it is typed after `:=`."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def split_words(words: Sequence[str]) -> dict[str, str]:
    """Split `name:=value` words; refuse any other form and repeated names."""
    arguments: dict[str, str] = {}
    for word in words:
        name, mark, value = word.partition(":=")
        if not mark or not name:
            example = word.lstrip("-").replace("=", ":=", 1) if "=" in word else "seed:=1"
            raise GraphError(f"argument: got {word!r}, expected name:=value, such as {example}.")
        if name in arguments:
            raise GraphError(
                f"argument {name!r}: got {arguments[name]!r} and {value!r}, expected one value."
            )
        arguments[name] = value
    return arguments
