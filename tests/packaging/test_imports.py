"""Import rules: wm_models and wm_datasets import neither each other nor ROS."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = {
    "wm_models": ROOT / "models/wm_models",
    "wm_datasets": ROOT / "datasets/wm_datasets",
    "wm_nodes": ROOT / "wm_nodes",
}
ROS = {"rclpy", "launch", "launch_ros", "ament_index_python", "rosgraph_msgs", "rcl_interfaces"}
ROS |= {
    f"{name}_msgs" for name in "sensor std trajectory diagnostic lifecycle builtin geometry".split()
}
ROS |= {"std_srvs", "builtin_interfaces"}
SIMULATORS = {"mujoco", "metaworld", "gymnasium", "dm_control"}
FORBIDDEN = {
    "wm_models": ROS | SIMULATORS | {"zarr", "wm_datasets", "wm_nodes"},
    "wm_datasets": ROS | SIMULATORS | {"torch", "wm_models", "wm_nodes"},
}
# Import name -> distribution, where they differ.
DISTRIBUTIONS = {"cv2": "opencv-python-headless", "yaml": "pyyaml", "PIL": "pillow"}
DISTRIBUTIONS |= {"OpenGL": "pyopengl", "rerun": "rerun-sdk", "pydantic_core": "pydantic"}
ROS_ONLY = {"launch", "launch_ros"}  # package.xml, never PyPI


def names_of(node: ast.AST) -> list[str]:
    """Return the modules that a statement imports, by absolute name."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
        return [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return []


def imports(folder: Path) -> dict[str, set[Path]]:
    """Return the top-level names imported under a folder -> the files that do it."""
    importers: dict[str, set[Path]] = {}
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            for name in names_of(node):
                importers.setdefault(name.partition(".")[0], set()).add(path.relative_to(ROOT))
    return importers


@pytest.mark.parametrize("package", FORBIDDEN)
def test_models_and_datasets_import_neither_ros_nor_each_other(package):
    wrong = {n: files for n, files in imports(PACKAGES[package]).items() if n in FORBIDDEN[package]}
    assert wrong == {}


def test_the_layers_of_pyproject_hold():
    pytest.importorskip("importlinter")
    program = "from importlinter.cli import lint_imports_command as run; run()"
    paths = os.pathsep.join(str(ROOT / path) for path in (".", "models", "datasets"))
    completed = subprocess.run(
        [sys.executable, "-c", program, "--no-cache"],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": paths},
        capture_output=True,
        text=True,
    )
    assert completed.returncode == 0, completed.stdout


@pytest.mark.parametrize("package", PACKAGES)
def test_every_import_is_a_declared_dependency(package):
    sources = (ROOT / "setup.py").read_text() + (ROOT / "package.xml").read_text()
    declared = {word.lower() for word in re.findall(r"[A-Za-z][\w-]+", sources)}
    for name, files in imports(PACKAGES[package]).items():
        if name in sys.stdlib_module_names or name in PACKAGES or name in ROS | ROS_ONLY:
            continue
        distribution = DISTRIBUTIONS.get(name, name)
        assert distribution.lower() in declared, f"{name} is imported by {sorted(files)}"


def own_files(name: str) -> list[Path]:
    """Return the files that importing a module of ours runs: its own and those of its packages."""
    top, *rest = name.split(".")
    if top not in PACKAGES:
        return []
    folders = [PACKAGES[top].joinpath(*rest[:i]) for i in range(len(rest) + 1)]
    files = [*(folder / "__init__.py" for folder in folders), folders[-1].with_suffix(".py")]
    return [path for path in files if path.exists()]


def test_what_ros2_launch_imports_needs_only_ros_and_the_standard_library():
    """`ros2` runs in the system's Python, which has neither torch nor what pip installed."""
    visited: set[Path] = set()
    todo = [ROOT / "wm_nodes/graphs/launch/ros_launch.py", *(ROOT / "launch").glob("*.py")]
    while todo:
        path = todo.pop()
        if path in visited:
            continue
        visited.add(path)
        for node in ast.parse(path.read_text()).body:
            for name in names_of(node):
                top = name.partition(".")[0]
                todo += own_files(name)
                allowed = top in sys.stdlib_module_names | ROS | {"yaml", "wm_nodes", "wm_models"}
                assert allowed, f"{path.relative_to(ROOT)} imports {name}"


def test_ros_messages_are_declared_in_package_xml():
    declared = set(
        re.findall(r"<exec_depend>(\w+)</exec_depend>", (ROOT / "package.xml").read_text())
    )
    used = {n for n in imports(ROOT / "wm_nodes") if n in ROS or n.endswith(("_msgs", "_srvs"))}
    assert used - {"ament_index_python"} <= declared
