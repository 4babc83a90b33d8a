"""ROS domains of this test process, local to the machine.

Two test processes whose process numbers are near each other, as those of pytest-xdist, share none.
The ports of domains up to 101 lie below those that Linux gives to any program.
"""

from __future__ import annotations

import os

OWN = 10 + os.getpid() % 30  # of nodes inside the test process; `os.environ` has it
PROCESSES = 40 + os.getpid() % 30  # of graphs that tests start as processes
EMPTY = 70 + os.getpid() % 30  # no node is ever started in it
