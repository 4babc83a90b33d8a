"""Links, anchors, commands, graphs and presets in the pages exist; their code runs."""

from __future__ import annotations

import logging
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from wm_models.registry import PRESETS
from wm_nodes.cli.main import COMMANDS, main
from wm_nodes.graphs import find_graph
from wm_nodes.graphs.graph import split_words

ROOT = Path(__file__).parents[2]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
README = (ROOT / "README.md").read_text()
EXAMPLES = ROOT / "docs" / "examples"
EXTENDING = (ROOT / "docs" / "extending.md").read_text()
LINK = re.compile(r"\]\(([^)\s]+)")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_targets_of_links_and_anchors_exist(page):
    for link in LINK.findall(prose(page)):
        name, _, anchor = link.partition("#")
        if "://" in link or link.startswith("mailto:"):
            continue
        target = (page.parent / name).resolve() if name else page
        assert target.is_relative_to(ROOT) and target.is_file(), link
        if anchor:
            assert target.suffix == ".md" and anchor in anchors(target), link


def test_links_and_anchors_of_a_page(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "# One: `a` & b\n\n## Same\n\n## Same\n\n[x](y.md#z)\n```\n## no\n[n](no)\n```\n"
    )
    assert LINK.findall(prose(page)) == ["y.md#z"]
    assert anchors(page) == {"same"}  # the first is spelt differently on GitHub and in the site


def prose(page: Path) -> str:
    """Return a page without its blocks of code."""
    return re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> set[str]:
    """Return the headings of a page as anchors, where GitHub and mkdocs agree."""
    headings = set()
    for heading in re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE):
        plain = re.sub(r"[^\w\s-]", "", heading.lower()).strip()
        if (github := plain.replace(" ", "-")) == re.sub(r"[-\s]+", "-", plain):
            headings.add(github)
    return headings


def test_every_page_is_in_the_navigation():
    nav = set(re.findall(r"([\w/-]+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE))
    pages = {str(path.relative_to(ROOT / "docs")) for path in (ROOT / "docs").rglob("*.md")}
    assert nav == pages | {"index.md", "contributing.md", "changelog.md"}


def test_each_example_is_shown_whole_and_has_a_test():
    files = {path.name for path in EXAMPLES.glob("*.py")}
    examples = {name for name in files if not name.startswith("test_")}
    assert files - examples == {f"test_{name}" for name in examples}
    shown = re.findall(r'^--8<-- "docs/examples/(\w+\.py)"$', EXTENDING, re.MULTILINE)
    assert sorted(shown) == sorted(examples)
    assert "docs/examples" in (ROOT / "pyproject.toml").read_text()  # among pytest's folders


def test_the_site_finds_every_page_of_its_navigation(caplog):
    """What `mkdocs build --strict` checks before it renders."""
    pytest.importorskip("mkdocs", reason="needs the [docs] extra")
    pytest.importorskip("mkdocstrings")
    from mkdocs.config import load_config
    from mkdocs.structure.files import get_files
    from mkdocs.structure.nav import get_navigation

    config = load_config(str(ROOT / "mkdocs.yml"), strict=True)
    config = config.plugins.on_config(config)
    files = config.plugins.on_files(get_files(config), config=config)
    pages = {page.file.src_uri for page in get_navigation(files, config).pages}
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert {"index.md", "changelog.md"} <= pages
    for module in ("wm_nodes/robots/robot", "wm_models/planners/cem", "wm_datasets/log/reader"):
        assert f"reference/{module}.md" in pages


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_site_builds_without_a_warning(tmp_path):
    pytest.importorskip("mkdocs", reason="needs the [docs] extra")
    pytest.importorskip("mkdocstrings")
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    completed = subprocess.run(build, cwd=ROOT, capture_output=True, text=True)
    assert completed.returncode == 0, completed.stderr
    assert "Robot learning" in (tmp_path / "index.html").read_text()
    for module in ("wm_nodes/robots/robot", "wm_models/planners/cem", "wm_datasets/log/reader"):
        assert "doc-class" in (tmp_path / "reference" / f"{module}.html").read_text()


def test_python_on_the_page_of_models_runs():
    page = (ROOT / "docs" / "models.md").read_text()
    (block,) = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    exec(block, {})


def test_commands_on_the_page_of_examples_are_accepted(tmp_path, monkeypatch):
    pytest.importorskip("mujoco", reason="needs the [sim] extra")
    commands = re.findall(r"^\.venv/bin/(wm .+)$", EXTENDING + README, re.MULTILINE)
    argument_lists = [shlex.split(command, comments=True)[1:] for command in commands]
    graphs = [
        (arguments[1], arguments[2:]) for arguments in argument_lists if arguments[:1] == ["launch"]
    ]
    for graph, graph_arguments in graphs:
        if graph.endswith(".py"):
            find_graph(str(ROOT / graph)).parse(split_words(graph_arguments))
    (tmp_path / "docs").symlink_to(ROOT / "docs")
    monkeypatch.chdir(tmp_path)
    collected = [arguments for arguments in argument_lists if arguments[0] == "collect"]
    assert collected and {graph for graph, _ in graphs} > {"docs/examples/two_joint_arm.py"}
    for arguments in collected:
        assert main(arguments) == 0


def test_commands_exist_and_are_all_named():
    named = set(re.findall(r"\bwm (\w+)", README)) - {"COMMAND"}
    assert named == set(COMMANDS)


def test_launch_lines_are_accepted():
    lines = re.findall(r"(?:wm|ros2) launch (?:wm_nodes )?(\w+)\S*((?: \w+:=[\w-]+)+)", README)
    launch_lines = [(graph, arguments) for graph, arguments in lines if graph != "GRAPH"]
    assert {graph for graph, _ in launch_lines} == {"sim_metaworld", "arm_mpc"}
    for graph, arguments in launch_lines:
        find_graph(graph).parse(split_words(arguments.split()))


def test_named_presets_exist():
    pages = "".join(page.read_text() for page in PAGES)
    assert set(re.findall(r"`(mwm\w*)`", pages)) <= set(PRESETS)


def test_generated_tables_are_those_of_the_code():
    """In another process: with a preset of a test's own the tables would be longer."""
    program = (
        "import sys; sys.path.insert(0, 'scripts'); from document import pages; "
        "print([page.name for page, text in pages().items() if page.read_text() != text])"
    )
    command = [sys.executable, "-c", program]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert result.stdout == "[]\n", (
        f"run python scripts/document.py: {result.stdout}{result.stderr}"
    )
