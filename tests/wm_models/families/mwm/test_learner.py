"""The learner: schedule, exact resume, and failed updates that change nothing."""

from __future__ import annotations

import copy
import io

import pytest
import torch

from tests.wm_models.families.mwm.mwm_tiny import log_rows
from wm_models.families.mwm.learner import LearnerConfig
from wm_models.interface.learner import BatchSpec
from wm_models.interface.preset import Sampling


def weights(learner) -> list[torch.Tensor]:
    slow = learner.behavior.target.parameters()
    return [p.detach().clone() for p in (*learner.model.parameters(), *slow)]


def test_equal_seeds_give_equal_weights(tiny, batches) -> None:
    def run(seed: int) -> list[torch.Tensor]:
        learner = tiny.build_learner(tiny.build(3, seed=1), seed=seed)
        for i in range(3):
            learner.update(batches(learner, i))
        return weights(learner)

    assert all(a.equal(b) for a, b in zip(run(0), run(0), strict=True))
    assert not all(a.equal(b) for a, b in zip(run(0), run(1), strict=True))


def test_training_resumes_exactly(changed, batches) -> None:
    """Weights and state_dict, through a file, continue with identical bits."""
    preset = changed(
        learner={"autoencoder_init": 1, "world_model_init": 1},
        behavior={"return_norm": True, "starts": 4, "target_every": 2},
    )
    learner = preset.build_learner(preset.build(3, seed=1), seed=5)
    for i in range(4):
        learner.update(batches(learner, i))
    file = io.BytesIO()
    torch.save({"model": learner.model.state_dict(), "learner": learner.state_dict()}, file)
    for i in range(4, 8):
        learner.update(batches(learner, i))

    file.seek(0)
    saved = torch.load(file, weights_only=True)
    other = preset.build_learner(preset.build(3, seed=9), seed=0)
    other.model.load_state_dict(saved["model"])
    other.load_state_dict(saved["learner"])
    for i in range(4, 8):
        other.update(batches(other, i))
    assert all(a.equal(b) for a, b in zip(weights(learner), weights(other), strict=True))
    assert learner.generator.get_state().equal(other.generator.get_state())


@pytest.mark.parametrize(
    ("behavior_every", "expected"),
    [(1, ["A", "A", "AW", "WB", "AWB", "WB"]), (2, ["A", "A", "AW", "WB", "AW", "WB"])],
)
def test_parts_start_one_after_the_other(changed, batches, behavior_every, expected) -> None:
    schedule = {"autoencoder_init": 2, "world_model_init": 1, "autoencoder_every": 2}
    preset = changed(learner={**schedule, "behavior_every": behavior_every})
    learner = preset.build_learner(preset.build(3))
    assert learner.initial_updates == 3
    updated_parts = []
    for i in range(6):
        metrics = learner.update(batches(learner, i))
        updated_parts.append("".join(k for k, key in _PARTS.items() if key in metrics))
    assert updated_parts == expected


_PARTS = {"A": "ae/pixel_loss", "W": "wm/kl", "B": "ac/actor_loss"}


def test_each_optimiser_moves_its_own_part(changed, batches) -> None:
    learner = changed().build_learner(changed().build(3, seed=1))
    expected = batches(learner)

    def moved(run) -> set[str]:
        parts = learner.model.modules_by_name()
        before = {k: [p.detach().clone() for p in m.parameters()] for k, m in parts.items()}
        run()
        return {
            k
            for k, m in parts.items()
            if not all(p.equal(q) for p, q in zip(m.parameters(), before[k], strict=True))
        }

    assert moved(lambda: learner.update_autoencoder(expected["autoencoder"])) == {"autoencoder"}
    batch = learner.prepare(expected["agent"])
    post = []
    assert moved(lambda: post.append(learner.update_world_model(batch)[0])) == {"world_model"}
    assert moved(lambda: learner.update_behavior(post[0], batch)) == {"actor", "critic"}


def test_all_rows_are_training_targets_reset_frames_included(tiny, batches, monkeypatch) -> None:
    """Windows of T + 1 log rows: T with a known reward; the reset frame comes with reward 0."""
    learner = tiny.build_learner(tiny.build(3, seed=1))
    training_batches = batches(learner)
    for rows in training_batches.values():
        rows["is_first"][0, 0] = True
        rows["image"][rows["is_first"]] = 7  # every pixel: marks reset frames
    inputs = {}

    def record_input(name: str, module, position: int) -> None:
        loss = module.loss
        monkeypatch.setattr(
            module,
            "loss",
            lambda *a: inputs.update({name: a[position]}) or loss(*a),
            raising=True,
        )

    record_input("ae", learner.model.autoencoder, 0)
    record_input("wm", learner.model.dynamics, 1)
    learner.update(training_batches)
    ae, wm = inputs["ae"], inputs["wm"]
    batch, length = training_batches["autoencoder"]["reward"].shape
    assert len(ae["reward"]) == batch * (length - 1) + 1  # the window that begins with a reset
    assert ae["reward_known"].all()
    assert wm["reward"].shape == (2, 4) and wm["reward_known"].all()
    assert wm["is_first"][:, 0].all()
    for rows in (ae, wm):
        reset = (rows["image"] == 7).flatten(rows["reward"].ndim).all(-1)
        assert reset.any() and not rows["reward"][reset].any()
        assert rows["reward"][~reset].all()  # only those have none


@pytest.mark.parametrize("join", [True, False])
def test_the_autoencoder_trains_on_every_row_equally_often(
    changed, monkeypatch, join: bool
) -> None:
    """From all windows of a log of three episodes, which are joined or are not."""
    preset = changed(learner={"sampling": Sampling(join=join)})
    learner, lengths = preset.build_learner(preset.build(3)), (4, 2, 6)
    rows = log_rows(1, sum(lengths))
    first = torch.zeros(sum(lengths)).bool()
    first[[0, 4, 6]] = True
    windows = [
        [(start + i) % sum(lengths) for i in range(2)]
        for start in range(sum(lengths))
        if join or not first[(start + 1) % sum(lengths)]
    ]
    batch = {name: value[0][torch.tensor(windows)] for name, value in rows.items()}
    batch["is_first"] = first[torch.tensor(windows)]
    batch["row"] = torch.tensor(windows)
    trained_rows = []
    loss = learner.model.autoencoder.loss
    monkeypatch.setattr(
        learner.model.autoencoder, "loss", lambda r, g: trained_rows.append(r["row"]) or loss(r, g)
    )
    learner.update_autoencoder(batch)
    assert trained_rows[0].bincount().tolist() == [1] * sum(lengths)


def test_windows_of_one_row_have_no_reward() -> None:
    with pytest.raises(ValueError, match=r"agent_batch\.length: got 1, expected the rows"):
        LearnerConfig(agent_batch=BatchSpec(8, 1))


@pytest.mark.parametrize("field", ["reward", "action"])
def test_a_batch_that_is_not_finite_changes_nothing(tiny, batches, field: str) -> None:
    learner = tiny.build_learner(tiny.build(3, seed=1))
    learner.update(batches(learner))
    before, state = weights(learner), copy.deepcopy(learner.state_dict())
    invalid = {"agent": batches(learner)["agent"]}
    invalid["agent"][field][:, 1] = float("nan")
    with pytest.raises(FloatingPointError, match="training diverged"):
        learner.update(invalid)
    assert all(a.equal(b) for a, b in zip(weights(learner), before, strict=True))
    after = learner.state_dict()
    assert after["updates"] == state["updates"]
    for key, value in state["behavior"].items():
        assert after["behavior"][key].equal(value)
    learner.update(batches(learner))  # and training continues


def test_losses_stay_finite_over_several_updates(tiny, batches) -> None:
    learner = tiny.build_learner(tiny.build(3, seed=1))
    for i in range(10):
        metrics = learner.update(batches(learner, i))
    assert all(torch.isfinite(torch.tensor(list(metrics.values()))))


def test_batches_are_named_with_their_sizes(tiny) -> None:
    learner = tiny.build_learner(tiny.build(3))
    assert learner.batch_specs == {"autoencoder": BatchSpec(4, 3), "agent": BatchSpec(2, 5)}
    assert BatchSpec(4, 3).frames == 12


def test_a_joint_step_leaves_the_autoencoder_alone(changed, batches) -> None:
    """It has a step of its own, on batches of its own."""
    preset = changed(learner={"joint": True, "autoencoder_init": 0, "world_model_init": 0})
    learner = preset.build_learner(preset.build(3, seed=1))
    for seed in range(3):
        learner.update(batches(learner, seed))
    assert {name: each.updates for name, each in learner.optimizers.items()} == {
        "ae": 3,
        "wm": 3,
        "actor": 3,
        "critic": 3,
    }
