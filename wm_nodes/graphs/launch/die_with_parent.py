"""Run a command that ends when its parent does: `die_with_parent.py NICE COMMAND ...`.

The kernel sends SIGTERM when the parent ends, also after kill -9. The command replaces
this process, so there is one process, not two. Nothing beyond the standard library is imported:
this is the start-up time of every node.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def follow_parent() -> None:
    """Request SIGTERM for when the parent ends; end at once if it has ended already."""
    parent = os.getppid()
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        sys.exit(0)


if __name__ == "__main__":
    follow_parent()
    os.nice(int(sys.argv[1]))
    os.execvp(sys.argv[2], sys.argv[2:])
