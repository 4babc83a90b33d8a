"""One version, one set of executables, all shared files where an installed package expects them."""

import re
import subprocess
import sys
import zipfile
from pathlib import Path
from xml.etree import ElementTree

import pytest

from wm_nodes.assets import share_dir

ROOT = Path(__file__).parents[2]
PARTS = {"__init__", "goal_topics", "model_node", "robot_space", "run_reports"}  # of nodes
NODES = sorted({path.stem for path in (ROOT / "wm_nodes" / "nodes").glob("*.py")} - PARTS)


def test_package_xml_and_setup_py_agree_on_name_and_version():
    package = ElementTree.parse(ROOT / "package.xml").getroot()
    setup = (ROOT / "setup.py").read_text()
    assert package.get("format") == "3"
    assert package.findtext("name") == "wm_nodes"
    assert f'version="{package.findtext("version")}"' in setup
    assert package.findtext("license") == "Apache-2.0"
    assert package.findtext("export/build_type") == "ament_python"


@pytest.mark.parametrize("node", NODES)
def test_every_node_has_a_main(node):
    source = (ROOT / "wm_nodes" / "nodes" / f"{node}.py").read_text()
    assert re.search(r"^def main\(", source, re.MULTILINE)
    assert re.search(rf"\b{node}\b", (ROOT / "setup.py").read_text())


def test_a_checkout_finds_its_own_shared_files():
    assert share_dir() == ROOT


def test_a_wheel_holds_all_roots_the_scripts_and_the_shared_files(tmp_path):
    """The wheel is what `pip install .` installs; built from a copy, nothing is littered."""
    copy = tmp_path / "copy"
    subprocess.run(["git", "clone", "-q", "--depth", "1", f"file://{ROOT}", str(copy)], check=True)
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "-w", str(tmp_path), str(copy)], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    for package in ("wm_nodes", "wm_models", "wm_datasets"):
        assert f"{package}/__init__.py" in names
        assert f"{package}/py.typed" in names
    shared = [name.partition(".data/data/")[2] for name in names]
    assert "share/wm_nodes/launch/sim.launch.py" in shared
    assert "share/wm_nodes/launch/sim_metaworld.launch.py" in shared
    assert "share/wm_nodes/launch/sim_dmc.launch.py" in shared
    assert "share/wm_nodes/package.xml" in shared
    assert "share/ament_index/resource_index/packages/wm_nodes" in shared
    assert any(name.startswith("share/wm_nodes/config/") for name in shared)
    assert not any(name.startswith(("tests/", "models/", "datasets/")) for name in names)


def test_an_installed_package_finds_share_under_its_prefix(tmp_path):
    code = tmp_path / "lib/python3.11/site-packages/wm_nodes"
    code.mkdir(parents=True)
    (code / "assets.py").write_text((ROOT / "wm_nodes/assets.py").read_text())
    (code / "__init__.py").touch()
    share = tmp_path / "share/wm_nodes"
    (share / "launch").mkdir(parents=True)
    (share / "package.xml").touch()
    script = "from wm_nodes.assets import share_dir; print(share_dir())"
    command = [
        sys.executable,
        "-c",
        f"import sys; sys.path.insert(0, {str(code.parent)!r}); {script}",
    ]
    assert subprocess.check_output(command, text=True, cwd=tmp_path).strip() == str(share)


def test_colcon_lists_a_ros_package():
    pytest.importorskip("colcon_ros")
    pytest.importorskip("colcon_package_information")
    program = "from colcon_core.command import main; raise SystemExit(main())"
    arguments = ["--log-base", "/dev/null", "list", "--paths", str(ROOT)]
    output = subprocess.check_output([sys.executable, "-c", program, *arguments], text=True)
    assert "ros.ament_python" in output
