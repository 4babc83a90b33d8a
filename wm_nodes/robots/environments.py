"""Several instances of one simulated environment: their namespaces, seeds, logs and shares.

Standard library only: graphs and nodes use it. Environment 0 is what a run with one environment
has.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

SEEDS = 2**31  # seeds of nodes are below


def namespace(number: int, count: int) -> str:
    """Return the namespace of an environment, relative to that of its graph; "": the graph's own.

    Of several environments, each has one below the graph's.
    """
    return f"env_{number}" if count > 1 else ""


def environment_seed(seed: int, number: int) -> int:
    """Return the seed of an environment: the run's for environment 0."""
    if number == 0:
        return seed
    digest = hashlib.blake2b(f"{seed}/environment/{number}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") % SEEDS


def environment_log(log: str, number: int) -> str:
    """Return the replay log of an environment: `log` for environment 0, else one beside it."""
    return f"{log}_env_{number}" if number else log


def environment_logs(log: str, count: int) -> list[str]:
    """Return the replay logs of all environments."""
    return [environment_log(log, number) for number in range(count)]


def recorded_logs(log: Path) -> list[Path]:
    """Return a log, and those of further environments that are beside it."""
    logs, number = [log], 1
    while (more := Path(environment_log(str(log), number))).joinpath("zarr.json").is_file():
        logs.append(more)
        number += 1
    return logs


def share(total: int, number: int, count: int) -> int:
    """Return an environment's share of a total; the shares of all add up to it."""
    return total // count + (number < total % count)
