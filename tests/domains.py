"""ROS domains of this test process, local to the machine; no other test process has them.

A domain is claimed by a lock on a file, which ends with the process, however it ends. The ports of
domains up to 101 lie below those that Linux gives to any program. Domain 0 is that of users.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
from pathlib import Path

FOLDER = Path(tempfile.gettempdir()) / f"wm-tests-domains-{os.getuid()}"
EMPTY = 101  # no node is ever started in it
_held = []


def claim() -> int:
    """Return a domain that no other test process of this user has until this one ends."""
    FOLDER.mkdir(exist_ok=True)
    for number in range(1, EMPTY):
        domain = 1 + (os.getpid() + number) % (EMPTY - 1)  # not one that has just become free
        file = (FOLDER / str(domain)).open("w")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            continue
        _held.append(file)
        return domain
    raise RuntimeError(f"{FOLDER}: got no free domain, expected one of 1..{EMPTY - 1}.")


OWN = claim()  # of nodes inside the test process; `os.environ` has it
PROCESSES = claim()  # of graphs that tests start as processes
