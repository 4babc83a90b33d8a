"""ROS namespaces as text: which are legal, and how relative names become absolute.

Standard library only: graphs, robot files, command line and nodes all use it.
"""

from __future__ import annotations

import re

ROOT = "/"
ROBOT = "/robot"  # of the nodes of one robot
ARM_SIM = "/arm_sim"  # of the simulated driver
NAMESPACE = re.compile(r"/?[A-Za-z_][A-Za-z0-9_]*(?:/[A-Za-z_][A-Za-z0-9_]*)*|/")
LONGEST = 120  # characters; ROS allows 247 in a topic's whole name
EXPECTED = (
    f"letters, digits and _ between single slashes, no part that begins with a digit, at most "
    f"{LONGEST} characters, such as /left/robot"
)


def legal(text: str) -> bool:
    """Return whether this is a namespace, absolute (/left/robot) or relative (left/robot)."""
    return len(text) <= LONGEST and NAMESPACE.fullmatch(text) is not None


def refusal(what: str, text: str) -> str:
    """Return the line that refuses an illegal namespace; `what` is the argument's name."""
    shown = text if len(text) <= LONGEST else f"{text[:LONGEST]}..."
    return f"{what}: got {shown!r}, expected {EXPECTED}."


def absolute(name: str, base: str = ROOT) -> str:
    """Return a name or namespace as an absolute one: a relative one is below `base`.

    Names that begin with ~ (private to a node) and empty names stay as they are.
    """
    if not name or name[0] in "/~":
        return name
    return f"{base.rstrip('/')}/{name}"


def beside(namespace: str, name: str) -> str:
    """Return a name in the namespace's parent: /left/robot, arm_sim -> /left/arm_sim."""
    return absolute(name, namespace.rstrip("/").rpartition("/")[0] or ROOT)


def within(namespace: str, full_name: str) -> str:
    """Return the name of a node without its namespace; "" if it is in another namespace."""
    place, _, name = full_name.rpartition("/")
    return name if place == namespace.rstrip("/") else ""
