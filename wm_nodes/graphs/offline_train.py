"""A recorded log in, weights out: the trainer node alone, watched by the monitor."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from wm_nodes.graphs.arguments import (
    CONFIG,
    LOG,
    MODEL,
    NETWORK,
    NS,
    PRETRAINED,
    REPORT,
    RUN,
    SEED,
    SET,
    WEIGHTS,
    check_cameras,
    check_files,
    first_pretrained,
    first_weights,
    trainer_threads,
)
from wm_nodes.graphs.graph import Argument, Graph, GraphError, NodeSpec, Parameter, Values

REPORT_S = 180.0  # after the trainer's end, for the monitor's report


def _trainer(values: Values) -> Mapping[str, Parameter]:
    return {
        **{
            name: values[name] for name in ("run", "log", "model", "set", "camera", "seed", "steps")
        },
        "weights": first_weights(values),
        "pretrained": first_pretrained(values),
        "pace": False,
        "threads": trainer_threads(os.cpu_count() or 1),
    }


def _monitor(values: Values) -> Mapping[str, Parameter]:
    parameters = {name: values[name] for name in ("run", "log", "report")}
    return {**parameters, "wait_for": "trainer"}


def _check(values: Values) -> None:
    check_files(values)
    check_cameras(values)
    if not Path(str(values["log"])).is_dir():
        raise GraphError(
            f"log: got {values['log']!r}, which does not exist, expected the folder of a log."
        )


GRAPH = Graph(
    name="offline_train",
    description="Train from a recorded log.",
    arguments=(
        replace(LOG, description="Replay log to learn from (a folder)."),
        MODEL,
        SET,
        CONFIG,
        WEIGHTS,
        PRETRAINED,
        SEED,
        Argument(
            "camera",
            "",
            "Camera of the log that the model sees, or several with commas between (Dreamers); "
            "empty: the first of its image size, or the only one.",
            fixed=True,
            several=True,
        ),
        Argument("steps", 0, "End after this many updates; 0: never.", low=0),
        RUN,
        REPORT,
        NETWORK,
        NS,
    ),
    nodes=(
        NodeSpec(
            "trainer",
            "trainer",
            _trainer,
            on_exit="shutdown",
            grace_s=REPORT_S,
            stop_rank=0,
            threads=trainer_threads,
        ),
        NodeSpec("monitor", "monitor", _monitor, on_exit="shutdown", stop_rank=2, shown=True),
    ),
    check=_check,
)
