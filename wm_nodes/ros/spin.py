"""Runs one node to its end. The only init and shutdown of ROS in this package.

Exit codes: 0 the run is over or a signal has ended it, 1 an error in the program (with traceback),
2 a mistake of the user (one or two lines).
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import contextmanager, suppress
from types import FrameType
from typing import TYPE_CHECKING, Any

import rclpy
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.signals import SignalHandlerOptions

from wm_nodes.errors import UserError
from wm_nodes.graphs.launch import process_identity
from wm_nodes.ros import shared_memory

if TYPE_CHECKING:
    from collections.abc import Iterator

    from wm_nodes.ros.node import ManagedNode

DONE, FAILED, WRONG = 0, 1, 2
ABSORBED_S = 4.5  # after SIGINT `ros2 launch` sends SIGTERM in 4 s and SIGKILL in 5 s
SIGNALS = (
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGHUP,
)  # SIGHUP: the terminal was closed


def main(kind: Callable[[], ManagedNode[Any]]) -> None:
    """Run a node and end the process with its exit code; every node's `main` calls this.

    The process ends at once: `run` has closed everything, and freeing torch takes a second.
    """
    try:
        code = run(kind)
    except Exception:
        traceback.print_exc()
        code = FAILED
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)  # everything is closed
    _leave_the_graph()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # the reader of a pipe may be closed
            stream.flush()
    os._exit(code)


def _leave_the_graph() -> None:
    """Free nodes in reference cycles: with the last one DDS ends its participant, so that no other
    process sees the node and no shared memory is left."""
    gc.unfreeze()
    gc.collect()


def run(kind: Callable[[], ManagedNode[Any]], args: Sequence[str] | None = None) -> int:
    """Make the node, configure and activate it if `autostart`, spin it; return the exit code."""
    shared_memory.remove_dead()
    arguments = list(sys.argv if args is None else args)
    try:
        rclpy.init(
            args=process_identity.with_enclave(arguments),
            signal_handler_options=SignalHandlerOptions.NO,
        )
    except Exception as error:  # rclpy's own types differ between releases
        return _refuse(
            f"{_first_lines(error)} Expected: --ros-args -p name:=value --params-file FILE."
        )
    try:
        return _spin(kind, arguments)
    except UserError as error:
        return _refuse(str(error))
    except (KeyboardInterrupt, ExternalShutdownException):
        return DONE
    finally:
        rclpy.try_shutdown()


def _spin(kind: Callable[[], ManagedNode[Any]], args: Sequence[str]) -> int:
    node = kind()
    node.own_process(process_identity.published(args))
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    try:
        with _signals(node):
            try:
                node.begin()
                gc.collect()
                gc.freeze()  # these objects stay: the collector does not visit torch again
                executor.spin_until_future_complete(node.finished)
            finally:
                node.end()  # while signals are still handled
        return node.exit_code
    finally:
        executor.shutdown(timeout_sec=0.2)
        node.destroy_node()


@contextmanager
def _signals(node: ManagedNode[Any]) -> Iterator[None]:
    """SIGINT, SIGTERM and SIGHUP call `node.finish`, so that ROS still works while the node ends.

    Further signals do not interrupt a node that was active and is ending: launchers send SIGTERM a
    few seconds after SIGINT, and operators press Ctrl-C again. They raise KeyboardInterrupt in a
    node that is still starting, and ABSORBED_S after the first one, unless the node FINISHES.
    The executor waits inside C++, where no Python handler runs: a thread reads the byte that the
    interpreter writes at each signal, and finishes the node.
    """
    first_s: list[float] = []

    def handler(number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if not first_s:
            first_s.append(now)
        elif not node.FINISHES and (not node.was_active or now - first_s[0] > ABSORBED_S):
            raise KeyboardInterrupt

    def watch() -> None:
        while os.read(reader, 1) != b"\0":
            node.finish()

    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    thread = threading.Thread(target=watch, name="signals", daemon=True)
    ignored = {signal.SIGHUP} if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else set()
    before = {s: signal.signal(s, handler) for s in SIGNALS if s not in ignored}  # nohup: goes on
    old = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    thread.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(old)
        for number, previous in before.items():
            signal.signal(number, previous)
        os.write(writer, b"\0")
        thread.join(1.0)
        os.close(writer)
        os.close(reader)


def _first_lines(error: Exception) -> str:
    text = str(error).strip().splitlines() or [type(error).__name__]
    return text[0].rstrip(".") + "."


def _refuse(text: str) -> int:
    print(f"error: {text}", file=sys.stderr)
    return WRONG
