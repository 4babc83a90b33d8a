"""A logged episode in, on a robot's topics: to debug nodes, to record it again, to see plans."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from wm_nodes.graphs.arguments import (
    COMPOSITION,
    LOG,
    MODEL,
    NETWORK,
    NS,
    PLANNER,
    RUN,
    SEED,
    WEIGHTS,
    begun_with,
    check_cameras,
    check_files,
    first_weights,
)
from wm_nodes.graphs.graph import Argument, Graph, GraphError, NodeSpec, Parameter, Values
from wm_nodes.robots.cameras.names import camera_names, joined

SETTLE_S = 2.0  # after the episode's end, for the recorder's last rows
NONE = "none"


def _answers(values: Values) -> list[str]:
    """Topics whose messages are waited for: no row is lost at the start, no plan is skipped."""
    recorded = ["recorded"] if values["record"] else []
    return recorded + (["plan"] if values["composition"] != NONE else [])


def _replay(values: Values) -> Mapping[str, Parameter]:
    parameters: dict[str, Parameter] = {name: values[name] for name in ("log", "episode", "rate")}
    answers = _answers(values)
    return {**parameters, "as_camera": True, **({"answers": answers} if answers else {})}


def _cameras(log: Path) -> list[str]:
    """Return the names of a log's cameras, with nothing but the standard library."""
    try:
        root = json.loads((log / "zarr.json").read_text())
        return list(root["attributes"]["wm_log"]["spec"]["cameras"])
    except (OSError, ValueError, KeyError, TypeError):
        raise GraphError(
            f"log: got {str(log)!r}, which is no replay log, expected a folder (`wm log info`)."
        ) from None


def _camera(values: Values) -> str:
    """Return the chosen cameras, else the several that the weights were trained with, else the
    log's first."""
    if values["camera"]:
        return str(values["camera"])
    facts = begun_with(values)
    if facts is not None and len(facts.cameras) > 1:
        return joined(facts.cameras)
    return next(iter(_cameras(Path(str(values["log"])))), "")


def _model_node(values: Values) -> dict[str, Parameter]:
    parameters: dict[str, Parameter] = {name: values[name] for name in ("model", "run", "seed")}
    return {**parameters, "weights": first_weights(values)}


def _image_node(values: Values) -> Mapping[str, Parameter]:
    return {**_model_node(values), "camera": _camera(values)}


def _policy(values: Values) -> Mapping[str, Parameter]:
    return {**_model_node(values), "planner": values["planner"]}


def _agent(values: Values) -> Mapping[str, Parameter]:
    return {**_policy(values), "camera": _camera(values)}


def _split(values: Values) -> bool:
    return values["composition"] == "split"


def _check(values: Values) -> None:
    check_files(values)
    cameras = _cameras(Path(str(values["log"])))
    camera = _camera(values)
    check_cameras({**values, "camera": camera}, seen=values["composition"] != NONE)
    if unknown := [name for name in camera_names(camera) if name not in cameras]:
        raise GraphError(
            f"camera: got {unknown[0]!r}, expected one of the log's: {', '.join(cameras)}."
        )


GRAPH = Graph(
    name="replay",
    description="A logged episode onto a robot's topics, with its timing.",
    arguments=(
        replace(LOG, description="Replay log to play from (a folder)."),
        Argument("episode", -1, "Episode to play, from 0; -1: the newest."),
        Argument(
            "rate",
            1.0,
            "Speed relative to the recording; 0: without any pause.",
            low=0.0,
            high=1000.0,
        ),
        Argument("record", False, "Record what is played, to runs/NAME/log."),
        replace(
            COMPOSITION,
            default=NONE,
            description="Nodes that plan for what is played (their plans are not executed). none: "
            "no node; split: encoder, world_model, policy; fused: one agent.",
            choices=(NONE, *COMPOSITION.choices),
        ),
        MODEL,
        WEIGHTS,
        PLANNER,
        Argument(
            "camera",
            "",
            "Camera that the planning nodes use, or several with commas between; empty: those of "
            "the weights where they are several, else the log's first.",
            several=True,
        ),
        SEED,
        RUN,
        NETWORK,
        NS,
    ),
    nodes=(
        NodeSpec("encoder", "encoder", _image_node, condition=_split),
        NodeSpec("world_model", "world_model", _image_node, condition=_split),
        NodeSpec("policy", "policy", _policy, condition=_split),
        NodeSpec(
            "agent", "agent", _agent, condition=lambda values: values["composition"] == "fused"
        ),
        NodeSpec(
            "recorder",
            "recorder",
            lambda values: {"log": f"{values['run']}/log"},
            condition=lambda values: bool(values["record"]),
        ),
        NodeSpec(
            "replay",
            "replay",
            _replay,
            restart=False,
            on_exit="shutdown",
            grace_s=SETTLE_S,
            stop_rank=0,
            shown=True,
        ),
    ),
    check=_check,
)
