"""The argument `envs` of a simulator's graph: what several environments share and imply."""

from __future__ import annotations

from wm_nodes.graphs.graph import Argument, GraphError, Value, Values

ENVS = Argument(
    "envs",
    1,
    "Environments that collect in parallel for one trainer, in namespaces env_0, env_1, ...; more "
    "than 1: lock-step, composition:=fused, one agent that acts for all in batches.",
    low=1,
    high=64,
    fixed=True,
)


def progress_file(number: int) -> str:
    """Return the name of the file with the counts of an environment's robot."""
    return f"progress_env_{number}.json" if number else "progress.json"


def count_of(values: Values) -> int:
    """Return the number of environments."""
    return int(values.get("envs", 1))


def part_of(values: Values, name: str) -> int:
    """Return an environment's part of a number of all, rounded up; 0 stays 0: none, or no limit."""
    return -(-int(values[name]) // count_of(values))


def has_several(values: Values) -> bool:
    """Return whether there is more than one."""
    return count_of(values) > 1


def implied(chosen: Values) -> dict[str, Value]:
    """Return what several environments imply, unless it is chosen: one agent in one process."""
    return {"composition": "fused"} if int(chosen.get("envs", 1)) > 1 else {}


def check_environments(values: Values) -> None:
    """Refuse what several environments cannot be combined with. GraphError."""
    count = count_of(values)
    for name, able in (("mode", "lockstep"), ("composition", "fused")):
        if values[name] != able:
            raise GraphError(
                f"{name}: got {values[name]} with envs:={count}, expected {able}: several "
                f"environments have one agent, in lock-step. Set {name}:={able}, or envs:=1."
            )
    for name in ("steps", "episodes"):
        if 0 < int(values[name]) < count:
            raise GraphError(
                f"{name}: got {values[name]} with envs:={count}, expected 0 or at least {count}: "
                "each environment has a share."
            )
