"""Arguments: types, ranges, choices; a wrong one is refused with the valid values."""

import pytest

from wm_nodes.graphs import NAMES, find_graph
from wm_nodes.graphs.arguments import MODELS
from wm_nodes.graphs.graph import Argument, GraphError, split_words
from wm_nodes.robots.sims.metaworld_tasks import TASKS

REQUIRED = (
    "task model weights train seed steps episodes run log mode composition render camera "
    "action_repeat report network planner"
).split()


@pytest.mark.parametrize("name", NAMES)
def test_every_default_is_allowed_and_described(name):
    graph = find_graph(name)
    for argument in graph.arguments:
        assert argument.parse(argument.shown()) == argument.default
        assert argument.description.endswith(".")


def test_sim_metaworld_has_the_required_arguments():
    names = [argument.name for argument in find_graph("sim_metaworld").arguments]
    assert set(REQUIRED) <= set(names)


def test_tasks_are_those_of_metaworld():
    from wm_nodes.robots.sims.metaworld import tasks

    assert sorted(f"{task}-v3" for task in TASKS) == sorted(tasks())


def test_models_are_the_presets():
    from wm_models.registry import PRESETS

    assert set(MODELS) == set(PRESETS)


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("task:=window-clos-v3", "Closest: window-close-v3"),
        ("tsk:=reach-v3", "Closest: task"),
        ("seed:=-1", "a whole number from 0"),
        ("seed:=1.5", "a whole number from 0"),
        ("train:=maybe", "true or false"),
        ("mode:=fast", "one of lockstep, realtime"),
        ("action_repeat:=0", "from 1 to 20"),
    ],
)
def test_a_wrong_argument_is_refused_with_the_valid_values(argument, message):
    with pytest.raises(GraphError) as error:
        find_graph("sim_metaworld").parse(split_words([argument]))
    assert message in str(error.value)
    assert len(str(error.value)) < 320


def test_an_unknown_graph_is_refused():
    with pytest.raises(GraphError, match="Closest: sim_metaworld"):
        find_graph("sim_metaword")


@pytest.mark.parametrize("argument", ["task", "--task=reach-v3", ":=3"])
def test_other_forms_than_name_value_are_refused(argument):
    with pytest.raises(GraphError, match="name:=value"):
        split_words([argument])


def test_a_repeated_name_is_refused():
    with pytest.raises(GraphError, match="got '1' and '2', expected one value"):
        split_words(["seed:=1", "seed:=2"])


def test_numbers_keep_their_type():
    assert Argument("rate", 2.0, "Rate.", low=0.0).parse("3") == 3.0
    assert isinstance(Argument("rate", 2.0, "Rate.").parse("3"), float)
    assert Argument("on", False, "On.").parse("True") is True


def test_composition_chooses_the_processes():
    graph = find_graph("sim_metaworld")
    values = {**graph.defaults(), "run": "/tmp/x", "log": "/tmp/x/log"}
    split = {node.name for node in graph.running({**values, "composition": "split"})}
    fused = {node.name for node in graph.running({**values, "composition": "fused"})}
    assert split - fused == {"camera", "encoder", "world_model", "policy"}
    assert fused - split == {"agent"}
    assert "trainer" not in {node.name for node in graph.running({**values, "train": False})}
