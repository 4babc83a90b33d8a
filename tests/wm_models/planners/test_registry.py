"""The registry is the only list of planners; the log source of each comes from it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from wm_datasets.spec import Source
from wm_models.errors import ModelError
from wm_models.planners.registry import PLANNERS, SEARCHES, planner
from wm_nodes.agent.action_selection import action_selector
from wm_nodes.records import Origin


@pytest.mark.parametrize("name", PLANNERS)
def test_the_actions_of_every_planner_have_the_log_source_of_the_registry(name):
    origin = Origin.parse(str(Origin("mwm_cpu", action_selector(name).name, 3)))
    assert origin.source == Source[PLANNERS[name].source.upper()]
    assert (origin.source == Source.POLICY) == (name == "actor")


@pytest.mark.parametrize("name", PLANNERS)
def test_every_entry_names_a_planner(name):
    assert isinstance(planner(name), PLANNERS[name].load())


def test_an_unknown_planner_is_refused_with_the_names_there_are():
    with pytest.raises(ModelError, match=r"'cme'.*one of actor, cem, mppi, gd.*'cem'"):
        planner("cme")


def test_choices_of_commands_and_graphs_are_the_registry_s():
    from wm_nodes.agent.action_selection import ACTION_SELECTORS
    from wm_nodes.cli.commands import options_of
    from wm_nodes.graphs import NAMES, find_graph

    assert tuple(PLANNERS) == ACTION_SELECTORS
    option = next(option for option in options_of("eval") if option.name == "--planner")
    assert option.choices == tuple(PLANNERS)
    arguments = [a for name in NAMES for a in find_graph(name).arguments if a.name == "planner"]
    assert len(arguments) == 6
    assert all(set(argument.choices) == set(PLANNERS) for argument in arguments)
    assert {"actor", *SEARCHES} == set(PLANNERS)


def test_it_is_read_without_torch():
    program = "import sys, wm_models.planners.registry, wm_nodes.records as records\n"
    program += "print('torch' in sys.modules, records.Origin('m', 'gd').source)"
    completed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert completed.stdout.split() == ["False", str(int(Source.PLANNER))], completed.stderr
