"""The newest error line of a node under `ros2 launch`, and the exception that fails the launch.

`LaunchService.run` returns 1 only if an event handler raises; a Shutdown event, whatever its
reason, returns 0.
"""

from __future__ import annotations

from launch.actions import RegisterEventHandler
from launch.event_handlers import OnProcessIO
from launch.events.process import ProcessIO
from launch_ros.actions import Node

from wm_nodes.graphs.launch.log_tail import Errors


class NodeFailed(RuntimeError):
    """Raised in an event handler: launch prints it, shuts down in order and returns 1."""


class LastError:
    """Reads the output of one process as launch receives it."""

    def __init__(self) -> None:
        self._line = ""
        self._streams = {True: Errors(), False: Errors()}  # from stderr? -> its lines

    def reader(self, node: Node) -> RegisterEventHandler:
        """Return the action that reads the output of `node`; to be executed before it starts."""
        handler = OnProcessIO(target_action=node, on_stdout=self._read, on_stderr=self._read)
        return RegisterEventHandler(handler)

    def with_line(self, what: str) -> str:
        """Return `what` with the newest error line; without one, with the last line."""
        recent = [line for stream in self._streams.values() for line in stream.recent[-1:]]
        line = self._line or next(iter(recent), "")
        return f"{what}: {line}" if line else what

    def _read(self, event: ProcessIO) -> None:
        self._line = [self._line, *self._streams[event.from_stderr].pick(event.text)][-1]
