"""The fields of a log that a batch of a learner has, and the exact repetition of batches."""

from __future__ import annotations

import pytest

from tests.tensors import assert_same_tensors
from tests.wm_nodes.tiny import TINY, record
from wm_datasets import LogReader
from wm_models.interface.action_scaling import ActionAdapter
from wm_models.interface.learner import BatchSpec
from wm_nodes.training.batches import Batches, log_fields
from wm_nodes.training.config import TrainingConfig
from wm_nodes.training.embodiment_stats import measure_embodiment

FIELDS = frozenset({"image", "action", "commanded", "is_first", "demo"})
SPECS = {"windows": BatchSpec(4, 3), "frames": BatchSpec(2, 1)}


@pytest.fixture
def batches(tmp_path):
    log = record(tmp_path / "log", 5, expert=True)
    readers = [LogReader(log)]
    adapter = ActionAdapter.of(TINY.build(measure_embodiment(readers), 0))

    def build(**options):
        config = TrainingConfig(tmp_path / "run", ((log, 1.0),), model="tiny", **options)
        return Batches([(readers[0], 1.0)], FIELDS, ("top",), adapter, TINY.sampling, config, "cpu")

    return build


def test_the_camera_and_the_fields_behind_demo_are_read_from_the_log():
    assert log_fields(FIELDS, ("top",)) == {
        "image": "image/top",
        "action": "action",
        "commanded": "commanded",
        "is_first": "is_first",
        "is_last": "is_last",
        "source": "source",
    }
    assert log_fields(frozenset({"action"}), ()) == {"action": "action"}


def test_each_spec_gives_a_batch_of_its_size(batches):
    drawn = batches().draw(SPECS)
    assert {name: values["action"].shape[:2] for name, values in drawn.items()} == {
        "windows": (4, 3),
        "frames": (2, 1),
    }
    assert drawn["windows"].keys() == FIELDS | {"is_last"}
    assert drawn["windows"]["demo"].any()
    assert not (drawn["windows"]["demo"] & drawn["windows"]["is_last"]).any()


@pytest.mark.parametrize("options", [{}, {"resident_bytes": 1 << 20}])
def test_a_state_continues_the_sequence_exactly(batches, options):
    first, second = batches(seed=3, **options), batches(seed=4)
    first.draw(SPECS)
    second.load_state_dict(first.state_dict())
    expected, continued = first.draw(SPECS), second.draw(SPECS)
    assert expected.keys() == continued.keys() == SPECS.keys()
    for name, batch in expected.items():
        assert_same_tensors(batch, continued[name])
