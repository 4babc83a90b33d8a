"""What the README names exists: files that it links to, commands, graphs, presets, tasks."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from wm_models.registry import PRESETS
from wm_nodes.cli.main import COMMANDS
from wm_nodes.graphs import find_graph
from wm_nodes.graphs.graph import split_words

ROOT = Path(__file__).parents[2]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
README = (ROOT / "README.md").read_text()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)#]+)", page.read_text()):
        if "://" not in link:
            assert (page.parent / link).exists(), link


def test_commands_exist_and_are_all_named():
    named = set(re.findall(r"\bwm (\w+)", README)) - {"COMMAND"}
    assert named == set(COMMANDS)


def test_launch_lines_are_accepted():
    lines = re.findall(r"(?:wm|ros2) launch (?:wm_nodes )?(\w+)\S*((?: \w+:=[\w-]+)+)", README)
    given = [(graph, words) for graph, words in lines if graph != "GRAPH"]
    assert {graph for graph, _ in given} == {"sim_metaworld", "arm_mpc"}
    for graph, words in given:
        find_graph(graph).parse(split_words(words.split()))


def test_named_presets_exist():
    pages = "".join(page.read_text() for page in PAGES)
    assert set(re.findall(r"`(mwm\w*)`", pages)) <= set(PRESETS)
