"""`ros2 launch`, where launch_ros is installed: run and namespace are held until it ends."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest

pytest.importorskip("launch_ros")

from launch import LaunchContext
from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource

from wm_nodes.graphs import find_graph
from wm_nodes.graphs.graph import GraphError
from wm_nodes.graphs.launch.claims import claim
from wm_nodes.graphs.launch.run_folder import open_run

FILE = str(Path(__file__).parents[4] / "launch" / "arm_mpc.launch.py")
ARM = find_graph("arm_mpc")


def visit(context: LaunchContext, entity) -> None:
    """Execute all that starts no process, and keep no reference to it."""
    for child in entity.visit(context) or ():
        if isinstance(child, IncludeLaunchDescription) or not hasattr(child, "cmd"):
            visit(context, child)


def test_a_launch_holds_its_run_and_its_namespace_until_it_ends(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = {"policy": "random", "task": "goal", "run": "one"}
    context = LaunchContext()
    visit(
        context,
        IncludeLaunchDescription(
            PythonLaunchDescriptionSource(FILE), launch_arguments=arguments.items()
        ),
    )
    gc.collect()
    with pytest.raises(GraphError, match="got 'one', which is running already"):
        open_run(ARM, {"run": "one"})
    with pytest.raises(GraphError, match="which run one uses"):
        claim(ARM, open_run(ARM, {**arguments, "run": "two", "ns": "robot"}))
    del context
    gc.collect()
    open_run(ARM, {"run": "one"}).lock.close()
