"""Run a graph as plain processes under supervisord: `wm launch` where there is no `ros2`.

supervisord starts the nodes, restarts the crashed and ends the rest; this process shows their
output, ends the run when a node requires it or after Ctrl-C. supervisord ends with this process,
and a node with supervisord (die_with_parent.py): no process is left behind.

Order of the end: nodes of stop_rank 0 (the robot), then rank 1 together, then rank 2. Exit codes:
0 the run is over or Ctrl-C, 1 something broke, 2 a wrong argument.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
import types
from collections import deque
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from xmlrpc.client import Fault, ServerProxy

from supervisor.xmlrpc import SupervisorTransport

from wm_nodes.graphs.graph import (
    CRASH_WINDOW_S,
    CRASHES,
    USER_ERROR,
    Graph,
    GraphError,
    NodeSpec,
    split_words,
)
from wm_nodes.graphs.launch import die_with_parent
from wm_nodes.graphs.launch.claims import claimed
from wm_nodes.graphs.launch.environment import graph_environment, node_environment
from wm_nodes.graphs.launch.log_tail import Errors, Tail
from wm_nodes.graphs.launch.parameters import write_parameters
from wm_nodes.graphs.launch.process_identity import RUN
from wm_nodes.graphs.launch.run_folder import Run, open_run

LOOK_S = 0.2
# Whole seconds that a rank has to end before SIGKILL. Rank 0 is the robot: the longest stop of an
# arm takes 2.2 s, and cutting it short would leave the arm in motion. After END_S all are killed.
STOP_S = (3, 2, 1)
END_S = 4.8


def launch(graph: Graph, words: Sequence[str]) -> int:
    """Run the graph with `name:=value` words until it ends; return the exit code."""
    try:
        _require_ros()
        run = open_run(graph, split_words(words))
        with run.lock, claimed(graph, run) as placed, _Session(graph, placed) as session:
            return session.watch()
    except GraphError as error:
        print(f"wm launch {graph.name}: {error}", file=sys.stderr)
        return USER_ERROR


def _require_ros() -> None:
    if find_spec("rclpy") is None:
        raise GraphError(
            "ROS 2: got no rclpy, expected an installation. Source your ROS 2, or `make setup`, or "
            "pip install -c constraints.txt -e '.[ros]'."
        )


class _Session:
    """One supervisord with the nodes of one run."""

    def __init__(self, graph: Graph, run: Run) -> None:
        self.run = run
        self.nodes = {node.name: node for node in graph.running(run.values)}
        self.logs = run.path / "logs"
        self.logs.mkdir(parents=True, exist_ok=True)
        self._folder = tempfile.TemporaryDirectory(prefix="wm-")
        self._socket = Path(self._folder.name) / "supervisor.sock"
        self._config = self.logs / "supervisord.conf"
        self._config.write_text(self._configuration())
        self._tails = {name: Tail(self.logs / f"{name}.log") for name in self.nodes}
        self._errors = {name: Errors() for name in self.nodes}
        self._pids: dict[str, int] = {}
        self._crashes: dict[str, deque[float]] = {name: deque() for name in self.nodes}
        self._done: set[str] = set()  # nodes whose end ends the run, that have ended with 0
        self._signals = 0
        self._over_at: float | None = None  # when a node's end is to end the run
        self._process: subprocess.Popen[bytes]

    def __enter__(self) -> _Session:
        self._handlers = {
            number: signal.signal(number, self._note_signal)
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        }
        self._print(
            f"run {self.run.name}{' continues' if self.run.resumed else ''}: {self.run.path}"
        )
        for note in self.run.notes:
            self._print(note)
        command = [*die_with_parent.prefix(), sys.executable, "-m", "supervisor.supervisord"]
        command += ["-n", "-c", str(self._config)]
        self._process = subprocess.Popen(
            command,
            env={**os.environ, **graph_environment(self.run.values), RUN: self.run.launch},
            stdin=subprocess.DEVNULL,
            stdout=(self.logs / "supervisord.out").open("wb"),
            stderr=subprocess.STDOUT,
            start_new_session=True,  # the terminal's Ctrl-C reaches this process only
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()
        self._show_output()
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._folder.cleanup()

    def watch(self) -> int:
        """Show output and follow the nodes until the run is over; return the exit code."""
        code: int | None = None
        while code is None:
            time.sleep(LOOK_S)
            self._show_output()
            if self._signals:
                code = 0
            elif self._process.poll() is not None:
                self._print_error(f"supervisord ended with {self._process.returncode}: {self.logs}")
                code = 1
            else:
                code = self._verdict(self._states())
        self._stop()
        self._show_output()
        self._print(f"run {self.run.name} ended; run:={self.run.name} continues it")
        return code

    # --- what the nodes do ---------------------------------------------------------------------

    def _states(self) -> list[dict[str, Any]]:
        with contextlib.suppress(OSError, Fault):
            transport = SupervisorTransport(None, None, f"unix://{self._socket}")
            proxy: Any = ServerProxy("http://127.0.0.1", transport=transport)
            return list(proxy.supervisor.getAllProcessInfo())
        return []  # not up yet, or going down

    def _verdict(self, states: Sequence[Mapping[str, Any]]) -> int | None:
        for state in states:
            code = self._exit_code(self.nodes[state["name"]], state)
            if code is not None:
                return code
        over = self._over_at is not None and time.monotonic() >= self._over_at
        return 0 if over else None

    def _exit_code(self, node: NodeSpec, state: Mapping[str, Any]) -> int | None:
        name, pid = node.name, int(state["pid"])
        if state["statename"] == "EXITED":
            if state["exitstatus"] == USER_ERROR:
                self._print_last_lines(name)
                return USER_ERROR
            if state["exitstatus"] == 0:
                if node.on_exit == "shutdown" and self._all_done(node):
                    end = time.monotonic() + node.grace_s
                    self._over_at = end if self._over_at is None else min(end, self._over_at)
                return None
            if node.restart:  # supervisord is about to start it again
                return None
            self._print_last_lines(name)
            self._print_error(f"{name} ended with {state['exitstatus']}; log: {self._log(name)}")
            return 1 if node.on_exit == "shutdown" else None
        if state["statename"] == "FATAL":
            self._print_error(f"{name} cannot be started: {state['spawnerr']}")
            return 1
        if pid and self._pids.get(name, pid) != pid:
            return self._crashed(name, pid)
        if pid:
            self._pids[name] = pid
        return None

    def _all_done(self, node: NodeSpec) -> bool:
        """Has the node ended, and with it all of its kind, one for each environment?"""
        self._done.add(node.name)
        peers = [name for name in self._done if self.nodes[name].executable == node.executable]
        return len(peers) >= node.peers

    def _crashed(self, name: str, pid: int) -> int | None:
        self._pids[name] = pid
        self._print_last_lines(name)
        self._print_error(f"{name} crashed and was started again; log: {self._log(name)}")
        now, crashes = time.monotonic(), self._crashes[name]
        crashes.append(now)
        while crashes and now - crashes[0] > CRASH_WINDOW_S:
            crashes.popleft()
        if len(crashes) <= CRASHES:
            return None
        self._print_error(
            f"{name} crashed {len(crashes)} times in {CRASH_WINDOW_S:.0f} s; giving up"
        )
        return 1

    # --- output on the terminal ------------------------------------------------------------------

    def _show_output(self) -> None:
        for name, tail in self._tails.items():
            new = tail.read()
            if not new:
                continue
            errors = self._errors[name].pick(new)
            if self.nodes[name].shown:
                sys.stdout.buffer.write(new)
                sys.stdout.flush()
                continue
            for line in errors:
                self._print_error(f"{name}: {line}")

    def _print_last_lines(self, name: str) -> None:
        self._show_output()
        if not self.nodes[name].shown:
            for line in self._errors[name].last_lines():
                self._print_error(f"{name}: {line}")
        self._errors[name] = Errors()

    def _log(self, name: str) -> str:
        return os.path.relpath(self.logs / f"{name}.log")

    @staticmethod
    def _print(text: str) -> None:
        print(f"[launch] {text}", flush=True)

    @staticmethod
    def _print_error(text: str) -> None:
        print(f"[launch] {text}", file=sys.stderr, flush=True)

    # --- the end -------------------------------------------------------------------------------

    def _note_signal(self, number: int, frame: types.FrameType | None) -> None:
        self._signals += 1

    def _stop(self) -> None:
        """End all nodes in order; too long a wait kills them, and so does a second Ctrl-C, but not
        before the robot has had its time to come to rest."""
        if self._process.poll() is not None:
            return
        self._process.terminate()
        began_s, before = time.monotonic(), self._signals
        while self._process.poll() is None:
            patience_s = STOP_S[0] if self._signals > max(1, before) else END_S
            if time.monotonic() - began_s > patience_s:
                return self._kill()
            self._states()  # any request wakes supervisord, which else looks once a second
            time.sleep(0.05)
            self._show_output()

    def _kill(self) -> None:
        for pid in self._pids.values():
            with contextlib.suppress(OSError):
                os.killpg(pid, signal.SIGKILL)  # supervisord gives every node its own group
        self._process.kill()
        self._process.wait()

    # --- supervisord's configuration -----------------------------------------------------------

    def _configuration(self) -> str:
        head: dict[str, dict[str, object]] = {
            "unix_http_server": {"file": self._socket},
            "rpcinterface:supervisor": {
                "supervisor.rpcinterface_factory": (
                    "supervisor.rpcinterface:make_main_rpcinterface"
                )
            },
            "supervisord": {
                "nodaemon": "true",
                "silent": "true",
                "logfile": self.logs / "supervisord.log",
                "pidfile": Path(self._folder.name) / "supervisord.pid",
                "childlogdir": self.logs,
                "minfds": 256,
            },
        }
        ranks = sorted({node.stop_rank for node in self.nodes.values()}, reverse=True)
        for priority, rank in enumerate(ranks):  # the highest priority stops first
            members = [node for node in self.nodes.values() if node.stop_rank == rank]
            names = ",".join(node.name for node in members)
            head[f"group:rank{rank}"] = {"programs": names, "priority": priority + 1}
            head.update({f"program:{node.name}": self._program(node) for node in members})
        sections = (
            f"[{title}]\n" + "".join(f"{key}={_escaped(value)}\n" for key, value in rows.items())
            for title, rows in head.items()
        )
        return "\n".join(sections)

    def _program(self, node: NodeSpec) -> dict[str, object]:
        variables = node_environment(node, self.run.values)
        quoted = ",".join(f'{name}="{value}"' for name, value in variables.items())
        return {
            "command": self._command(node),
            "environment": quoted,
            "autorestart": "unexpected" if node.restart else "false",
            "exitcodes": f"0,{USER_ERROR}",
            "startsecs": 0,
            "stopsignal": "TERM",
            "stopwaitsecs": STOP_S[node.stop_rank],
            "killasgroup": "true",
            "redirect_stderr": "true",
            "stdout_logfile": self.logs / f"{node.name}.log",
            "stdout_logfile_maxbytes": "10MB",
            "stdout_logfile_backups": 1,
        }

    def _command(self, node: NodeSpec) -> str:
        file = write_parameters(self.run.path, node, self.run.values)
        words = [*die_with_parent.prefix(node.nice, by_wrapped=True), sys.executable]
        words += ["-m", node.module, "--ros-args"]
        words += ["-r", f"__ns:={node.namespace(self.run.values)}", "--params-file", str(file)]
        words += ["-r", f"__node:={node.ros_name}"] if node.ros_name else []
        words += ["--disable-external-lib-logs"]
        return " ".join(f'"{word}"' if " " in word else word for word in words)


def _escaped(value: object) -> str:
    return str(value).replace("%", "%%")
