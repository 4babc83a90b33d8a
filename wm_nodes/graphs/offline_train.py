"""A recorded log in, weights out: the trainer node alone, watched by the monitor."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from wm_nodes.graphs.arguments import (
    LOG,
    MODEL,
    NETWORK,
    REPORT,
    RUN,
    SEED,
    WEIGHTS,
    check_files,
)
from wm_nodes.graphs.declaration import Argument, Graph, GraphError, NodeSpec, Parameter, Values


def _trainer(values: Values) -> Mapping[str, Parameter]:
    return {name: values[name] for name in ("run", "log", "model", "weights", "seed")}


def _check(values: Values) -> None:
    check_files(values)
    if not Path(str(values["log"])).is_dir():
        raise GraphError(f"log: there is no replay log {values['log']!r}. Right: log:=FOLDER.")


GRAPH = Graph(
    name="offline_train",
    description="Train from a recorded log.",
    arguments=(
        replace(LOG, description="Replay log to learn from (a folder)."),
        MODEL,
        WEIGHTS,
        SEED,
        Argument("steps", 0, "End after this many updates; 0: never.", low=0),
        RUN,
        REPORT,
        NETWORK,
    ),
    nodes=(
        NodeSpec(
            "trainer",
            "trainer",
            _trainer,
            on_exit="shutdown",
            threads=lambda cores: max(1, cores - 1),
        ),
        NodeSpec("monitor", "monitor", on_exit="shutdown", stop_rank=2, shown=True),
    ),
    check=_check,
)
