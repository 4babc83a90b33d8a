"""Run a command that ends when its parent does: `die_with_parent.py PARENT NICE COMMAND ...`.

The kernel sends SIGTERM when the parent dies, however it dies (kill -9 too). The command replaces
this process, so there is one process, not two. PARENT is the parent's process id, or the name of
PID, the environment variable that holds it: a parent that dies before this process looks is not
found by asking. Nothing beyond the standard library is imported: this is the start-up time of
every node.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1
PID = "WM_NODES_WRAPPED_PID"  # environment of COMMAND: its process id


def prefix(nice: int = 0, *, by_wrapped: bool = False) -> list[str]:
    """Return the words before a command that this process starts.

    by_wrapped: a command of ours that itself runs under this file will start it (supervisord).
    """
    return [sys.executable, __file__, PID if by_wrapped else str(os.getpid()), str(nice)]


def follow_parent(parent: int) -> None:
    """Ask for SIGTERM at the parent's death; end at once if it has died already."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        sys.exit(f"not started, as its parent (process {parent}) has ended: {sys.argv[3:]}")


if __name__ == "__main__":
    follow_parent(int(os.environ[PID] if sys.argv[1] == PID else sys.argv[1]))
    os.environ[PID] = str(os.getpid())
    os.nice(int(sys.argv[2]))
    os.execvp(sys.argv[3], sys.argv[3:])
