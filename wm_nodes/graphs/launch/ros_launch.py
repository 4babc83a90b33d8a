"""The same graph as launch and launch_ros actions: what `ros2 launch` runs.

Nodes get absolute namespaces, made here from the arguments and from what PushRosNamespace pushed: a
node that is started again after a crash is outside the group that pushed it.

Imported by launch/*.launch.py only, in the Python of the `ros2` command: like the graphs, it needs
nothing but ROS and the standard library (the nodes run in the Python that colcon built with).
"""

from __future__ import annotations

import shlex
import time
from collections import Counter, deque
from functools import partial

from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity
from launch.actions import DeclareLaunchArgument, LogInfo, OpaqueFunction, Shutdown, TimerAction
from launch.events.process import ProcessExited
from launch_ros.actions import Node

from wm_nodes.errors import closest, unknown
from wm_nodes.graphs.graph import (
    CRASH_WINDOW_S,
    CRASHES,
    USER_ERROR,
    Argument,
    Graph,
    GraphError,
    NodeSpec,
)
from wm_nodes.graphs.launch import die_with_parent
from wm_nodes.graphs.launch.claims import claim
from wm_nodes.graphs.launch.environment import node_environment
from wm_nodes.graphs.launch.launch_errors import LastError, NodeFailed
from wm_nodes.graphs.launch.parameters import write_parameters
from wm_nodes.graphs.launch.process_identity import RUN
from wm_nodes.graphs.launch.run_folder import Run, open_run

LOCKS = "wm_nodes_locks"  # global of the launch context
PUSHED = "ros_namespace"  # launch configuration that PushRosNamespace sets
TO_SIGTERM_S, TO_SIGKILL_S = 4, 1  # Ctrl-C -> SIGINT; after these seconds SIGTERM, then SIGKILL
OUTPUT_S = 0.2  # launch may report a process's end before it has read the rest of its output


def launch_description(graph: Graph) -> LaunchDescription:
    """Return what `ros2 launch` runs: arguments with descriptions and choices, and the nodes."""
    # The nodes come before the declarations: then only the user's own arguments are configured.
    return LaunchDescription(
        [OpaqueFunction(function=partial(_start, graph)), *map(_declared, graph.arguments)]
    )


def _declared(argument: Argument) -> DeclareLaunchArgument:
    in_help = not argument.several and (argument.choices or isinstance(argument.default, str))
    right = "" if in_help else f" ({argument.right()})"
    return DeclareLaunchArgument(
        argument.name,
        default_value=argument.shown(),
        description=argument.description + right,
        choices=None if argument.several else list(argument.choices) or None,
    )


def _start(graph: Graph, context: LaunchContext) -> list[LaunchDescriptionEntity]:
    texts = {str(name): str(value) for name, value in context.launch_configurations.items()}
    known = [argument.name for argument in graph.arguments]
    # An including launch file may have names of its own.
    for name in set(texts).difference(known, {PUSHED}):
        if closest(name, known, cutoff=0.6):
            raise GraphError(unknown("argument", name, known))
    pushed = texts.get(PUSHED, "")
    run = open_run(graph, {name: texts[name] for name in known if name in texts}, pushed)
    place = claim(graph, run)
    run = place.run
    held = (*getattr(context.locals, LOCKS, ()), run.lock, *place.locks)
    context.extend_globals({LOCKS: held})  # open, and so held, as long as the launch lives
    about = f"run {run.name}{' continues' if run.resumed else ''}: {run.path}"
    actions: list[LaunchDescriptionEntity] = [LogInfo(msg=text) for text in (about, *run.notes)]
    done: Counter[str] = Counter()
    return [
        *actions,
        *(
            action
            for node in graph.running(run.values)
            for action in _NodeProcess(node, run, done).begin()
        ),
    ]


class _NodeProcess:
    """One node: started again after a crash, never after exit codes 0 and 2 (launch's respawn
    looks at no exit code). done: how many of each executable have ended with 0."""

    def __init__(self, node: NodeSpec, run: Run, done: Counter[str]) -> None:
        self._node, self._run, self._done = node, run, done
        self._crashes: deque[float] = deque(maxlen=CRASHES + 1)

    def begin(self) -> list[LaunchDescriptionEntity]:
        """Return the actions that start the process once and read its output."""
        self._error = LastError()
        process = self._process()
        return [self._error.reader(process), process]

    def _process(self) -> Node:
        node, values = self._node, self._run.values
        file = write_parameters(self._run.path, node, values)
        return Node(
            package="wm_nodes",
            executable=node.executable,
            exec_name=node.name,
            name=node.ros_name or None,
            namespace=node.namespace(values),
            parameters=[str(file)],
            additional_env={**node_environment(node, values), RUN: self._run.launch},
            prefix=shlex.join(die_with_parent.prefix(node.nice)),
            output="screen",
            sigterm_timeout=str(TO_SIGTERM_S),
            sigkill_timeout=str(TO_SIGKILL_S),
            on_exit=self._ended,
        )

    def _ended(
        self, event: ProcessExited, context: LaunchContext
    ) -> list[LaunchDescriptionEntity] | None:
        node, code = self._node, event.returncode
        if context.is_shutdown:
            return None
        if code == 0:
            self._done[node.executable] += 1
            if node.on_exit == "nothing" or self._done[node.executable] < node.peers:
                return None
            end = Shutdown(reason=f"{node.name} is done")
            return [TimerAction(period=node.grace_s, actions=[end])] if node.grace_s else [end]
        decide = OpaqueFunction(function=partial(self._failed, code))
        return [TimerAction(period=OUTPUT_S, actions=[decide], cancel_on_shutdown=False)]

    def _failed(self, code: int, context: LaunchContext) -> list[LaunchDescriptionEntity] | None:
        """Start the node again or fail the launch; its whole output has been read."""
        node, with_line = self._node, self._error.with_line
        if code == USER_ERROR:
            raise NodeFailed(with_line(f"{node.name} refused its arguments"))
        if not node.restart:
            ended = with_line(f"{node.name} ended with {code}")
            if node.on_exit == "shutdown":
                raise NodeFailed(ended)
            return [LogInfo(msg=ended)]
        if context.is_shutdown:
            return None
        times = self._crashes
        times.append(time.monotonic())
        if len(times) > CRASHES and times[-1] - times[0] < CRASH_WINDOW_S:
            crashed = f"{node.name} crashed {len(times)} times in {CRASH_WINDOW_S:.0f} s"
            raise NodeFailed(with_line(f"{crashed}, the last with {code}"))
        again = with_line(f"{node.name} crashed ({code}) and is started again")
        return [LogInfo(msg=again), *self.begin()]
