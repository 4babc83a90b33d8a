"""Test settings, set before mujoco is imported: without a display, images are rendered through EGL.

ROS stays on this machine, in a domain of this process. Robots write their latches to a folder of
this test run, not to the user's.
"""

from __future__ import annotations

import fcntl
import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest

from tests import domains

if not os.environ.get("DISPLAY"):
    os.environ.setdefault("MUJOCO_GL", "egl")

# Where a shell started the tests in the background, their processes would ignore Ctrl-C as well.
signal.signal(signal.SIGINT, signal.default_int_handler)
os.environ.setdefault("OMP_NUM_THREADS", "1")  # other test processes run beside this one
os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
os.environ["ROS_DOMAIN_ID"] = str(domains.OWN)
STATE = tempfile.TemporaryDirectory(prefix="wm-state-")
os.environ["XDG_STATE_HOME"] = STATE.name

# Names in a module whose tests start processes, use ROS, or run or render a simulator.
OTHER_PROGRAMS = frozenset({"subprocess", "multiprocessing", "signal", "rclpy", "mujoco", "main"})
OTHER_PROGRAMS |= {"open_robot", "SimulatedArm", "MetaWorld", "DmControl", "RobotContract", "Bench"}

try:  # a busy machine is no reason to fail
    from hypothesis import settings
except ImportError:
    pass
else:
    settings.register_profile("untimed", deadline=None)
    settings.load_profile("untimed")


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Run one test marked `realtime` at a time, whatever other test processes there are.

    The time limit of a test begins after this.
    """
    if item.get_closest_marker("realtime") is None:
        return (yield)
    lock = Path(tempfile.gettempdir()) / f"wm-tests-realtime-{os.getuid()}.lock"
    with lock.open("w") as lock_file:
        fcntl.flock(lock_file, fcntl.LOCK_EX)
        return (yield)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that `make test-fast` leaves out, by what their module imports."""
    for item in items:
        module = getattr(item, "module", None)
        names = set(vars(module)) if module else set()
        fixtures = set(getattr(item, "fixturenames", ()))
        if names & OTHER_PROGRAMS or fixtures & {"graph", "start_writer"}:
            item.add_marker("processes")


@pytest.fixture(autouse=True)
def environment() -> Iterator[None]:
    """Undo what a test changes in the environment: commands that it runs in this process set it."""
    with mock.patch.dict(os.environ):
        yield
