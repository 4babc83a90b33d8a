"""The same graph as launch and launch_ros actions: what `ros2 launch` runs.

Nodes get absolute namespaces, made here from the arguments and from what PushRosNamespace pushed: a
node that is started again after a crash is outside the group that pushed it.

Imported by launch/*.launch.py only, in the Python of the `ros2` command: like the graphs, it needs
nothing but ROS and the standard library (the nodes run in the Python that colcon built with).
"""

from __future__ import annotations

import shlex
import sys
import time
from collections import deque
from functools import partial

from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity
from launch.actions import DeclareLaunchArgument, LogInfo, OpaqueFunction, Shutdown, TimerAction
from launch.events.process import ProcessExited
from launch_ros.actions import Node

from wm_nodes.graphs import leash
from wm_nodes.graphs.claims import claim
from wm_nodes.graphs.declaration import (
    CRASH_WINDOW_S,
    CRASHES,
    USER_ERROR,
    Argument,
    Graph,
    GraphError,
    NodeSpec,
    closest,
    unknown,
)
from wm_nodes.graphs.environment import node_environment
from wm_nodes.graphs.parameters import write_parameters
from wm_nodes.graphs.runs import Run, hold, open_run
from wm_nodes.process_identity import RUN

LOCKS = "wm_nodes_locks"  # global of the launch context
PUSHED = "ros_namespace"  # launch configuration that PushRosNamespace sets
TO_SIGTERM_S, TO_SIGKILL_S = 4, 1  # Ctrl-C -> SIGINT; after these seconds SIGTERM, then SIGKILL


def launch_description(graph: Graph) -> LaunchDescription:
    """Return what `ros2 launch` runs: arguments with descriptions and choices, and the nodes."""
    # The nodes come before the declarations: then only what the person gave is configured yet.
    return LaunchDescription(
        [OpaqueFunction(function=partial(_start, graph)), *map(_declared, graph.arguments)]
    )


def _declared(argument: Argument) -> DeclareLaunchArgument:
    told = argument.choices or isinstance(argument.default, str)
    right = "" if told else f" ({argument.right()})"
    return DeclareLaunchArgument(
        argument.name,
        default_value=argument.shown(),
        description=argument.description + right,
        choices=list(argument.choices) or None,
    )


def _start(graph: Graph, context: LaunchContext) -> list[LaunchDescriptionEntity]:
    given = {str(name): str(value) for name, value in context.launch_configurations.items()}
    known = [argument.name for argument in graph.arguments]
    # An including launch file may have names of its own.
    for name in set(given).difference(known, {PUSHED}):
        if closest(name, known, cutoff=0.6):
            raise GraphError(unknown("argument", name, known))
    pushed = given.get(PUSHED, "")
    run = open_run(graph, {name: given[name] for name in known if name in given}, pushed)
    lock = hold(run)
    place = claim(graph, run)
    run = place.run
    held = (*getattr(context.locals, LOCKS, ()), lock, *place.locks)
    context.extend_globals({LOCKS: held})  # open, and so held, as long as the launch lives
    about = f"run {run.name}{' goes on' if run.resumed else ''}: {run.path}"
    actions: list[LaunchDescriptionEntity] = [LogInfo(msg=text) for text in (about, *run.notes)]
    return [
        *actions,
        *(_Life(node, run).begin() for node in graph.running(run.values)),
    ]


class _Life:
    """One node: started again after a crash, never after exit codes 0 and 2 (launch's respawn
    looks at no exit code)."""

    def __init__(self, node: NodeSpec, run: Run) -> None:
        self._node, self._run = node, run
        self._crashes: deque[float] = deque(maxlen=CRASHES + 1)

    def begin(self) -> Node:
        """Return the action that starts the process once."""
        node, values = self._node, self._run.values
        file = write_parameters(self._run.path, node, values)
        return Node(
            package="wm_nodes",
            executable=node.executable,
            exec_name=node.name,
            namespace=node.namespace(values),
            parameters=[str(file)],
            additional_env={**node_environment(node, values), RUN: self._run.launch},
            prefix=shlex.join([sys.executable, leash.__file__, str(node.nice)]),
            output="screen",
            sigterm_timeout=str(TO_SIGTERM_S),
            sigkill_timeout=str(TO_SIGKILL_S),
            on_exit=self._ended,
        )

    def _ended(
        self, event: ProcessExited, context: LaunchContext
    ) -> list[LaunchDescriptionEntity] | None:
        name, code = self._node.name, event.returncode
        if context.is_shutdown:
            return None
        if code == 0:
            end = Shutdown(reason=f"{name} is done")
            grace_s = self._node.grace_s
            if self._node.on_exit == "nothing":
                return None
            return [TimerAction(period=grace_s, actions=[end])] if grace_s else [end]
        if code == USER_ERROR:
            return [Shutdown(reason=f"{name} refused its arguments")]
        if not self._node.restart:
            return None
        times = self._crashes
        times.append(time.monotonic())
        if len(times) > CRASHES and times[-1] - times[0] < CRASH_WINDOW_S:
            return [
                Shutdown(reason=f"{name} crashed {len(self._crashes)} times, the last with {code}")
            ]
        return [LogInfo(msg=f"{name} crashed ({code}) and is started again"), self.begin()]
