"""Six complete updates of a small MWM: against plain formulas, and against stored weights.

The release of MWM cannot run here. The formulas (`mwm_reference`) and the stored weights are our
own; they fix the computations of the release, also where it differs from the paper: the
gradient of samples, the place of Adam's epsilon, the autoencoder's reward from the last patch.

    python -m tests.wm_models.families.mwm.test_six_updates    stores the weights again
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.wm_models.families.mwm.mwm_reference import Reference, Sizes
from tests.wm_models.families.mwm.mwm_tiny import ACTIONS, TINY, log_rows
from wm_models.families.mwm.learner import MWMLearner
from wm_models.families.mwm.presets import MWMPreset
from wm_models.nets.optimizer import OptimizerConfig, keras_adam

STORED = Path(__file__).parent / "six_updates.safetensors"
UPDATES, SEED = 6, 5
SIZES = Sizes(grid=4, heads=2, layers=2, stoch=4, classes=5, actions=ACTIONS, horizon=4, keep=4)
RELEASED = replace(
    TINY,
    model=replace(
        TINY.model,
        autoencoder=replace(TINY.model.autoencoder, reward_from="last_patch"),
        discount=True,
    ),
    learner=replace(
        TINY.learner,
        autoencoder=keras_adam(1e-3, warmup=2, decay_all=True),
        world_model=keras_adam(1e-3),
        actor=keras_adam(1e-4),
        critic=keras_adam(1e-4),
    ),
)


VARIANTS = {  # difference from the release -> the part of the model that it changes
    "epsilon": (
        replace(RELEASED, learner=replace(RELEASED.learner, world_model=OptimizerConfig(lr=1e-3))),
        "dynamics",
    ),
    "sample": (
        replace(
            RELEASED,
            learner=replace(
                RELEASED.learner,
                behavior=replace(RELEASED.learner.behavior, sample_gradient="exact"),
            ),
        ),
        "actor",
    ),
    "reward": (replace(RELEASED, model=replace(TINY.model, discount=True)), "autoencoder"),
}


def learner(preset: MWMPreset = RELEASED) -> MWMLearner:
    return preset.build_learner(preset.build(ACTIONS, seed=1), seed=SEED)


def six_updates(trained_learner: MWMLearner) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Weights before and after."""
    before = weights(trained_learner.model)
    for i in range(UPDATES):
        trained_learner.update(batches_of(i))
    return before, weights(trained_learner.model)


def batches_of(update: int) -> dict[str, dict[str, Tensor]]:
    """Windows of log rows that join two episodes; the first is terminal. One of the windows
    begins with a reset."""
    specs = {"autoencoder": TINY.learner.autoencoder_batch, "agent": TINY.learner.agent_batch}
    batches = {}
    for name, spec in specs.items():
        rows = log_rows(spec.batch, spec.length, seed=update)
        rows["is_first"][-1, 0] = True
        rows["is_terminal"] = torch.roll(rows["is_last"], -1, 1) | rows["is_last"]
        batches[name] = rows
    return batches


def weights(model: torch.nn.Module) -> dict[str, Tensor]:
    return {n: v.detach().clone() for n, v in model.state_dict().items() if n != "critic.scale"}


def transition(rows: Mapping[str, Tensor], window: int, t: int) -> dict[str, Tensor]:
    """Row t of a window with the step that led to it."""
    reset = bool(rows["is_first"][window, t])
    previous = {n: rows[n][window, t - 1] for n in ("action", "reward", "is_terminal")}
    return {
        "image": rows["image"][window, t],
        "action": torch.zeros(ACTIONS) if reset else previous["action"],
        "reward": torch.zeros(()) if reset else previous["reward"],
        "first": torch.tensor(reset),
        "terminal": torch.tensor(False) if reset else previous["is_terminal"],
    }


def frames(rows: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Every row but the first of a window, and that where it is a reset."""
    batch, length = rows["reward"].shape
    transitions = [
        transition(rows, b, t)
        for b in range(batch)
        for t in range(length)
        if t or rows["is_first"][b, 0]
    ]
    return {n: torch.stack([row[n] for row in transitions]) for n in ("image", "reward")}


def windows(rows: Mapping[str, Tensor]) -> dict[str, Tensor]:
    batch, length = rows["reward"].shape
    cut = []
    for b in range(batch):
        begin = 0 if rows["is_first"][b, 0] else 1
        cut.append([transition(rows, b, t) for t in range(begin, begin + length - 1)])
        cut[-1][0]["first"] = torch.tensor(True)
    return {n: torch.stack([torch.stack([r[n] for r in w]) for w in cut]) for n in cut[0][0]}


def distance(a: Mapping[str, Tensor], b: Mapping[str, Tensor], part: str) -> float:
    names = [n for n in b if n.startswith(part + ".") and b[n].is_floating_point()]
    return float(
        sum((a[n].detach().double() - b[n].detach().double()).square().sum() for n in names) ** 0.5
    )


@pytest.fixture(scope="module")
def trained() -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    return six_updates(learner())


PARTS = ("autoencoder", "dynamics", "actor", "critic")


def test_six_updates_follow_the_formulas(trained) -> None:
    before, after = trained
    reference = Reference(learner().model.state_dict(), SIZES, SEED)
    for i in range(UPDATES):
        batches = batches_of(i)
        reference.update(frames(batches["autoencoder"]), windows(batches["agent"]))
    for part in PARTS:  # measured: 1e-5 to 1.2e-4, the noise of float32
        assert distance(reference.w, after, part) < 1e-3 * distance(after, before, part), part


@pytest.mark.parametrize("variant", VARIANTS)
def test_six_updates_differ_for_each_difference_from_the_release(trained, variant: str) -> None:
    preset, part = VARIANTS[variant]
    before, after = six_updates(learner(preset))
    shared = {n for n, v in before.items() if v.equal(trained[0].get(n, v[:0]))}
    assert any(n.startswith(part) for n in shared)
    released = {n: v for n, v in trained[1].items() if n in shared}
    assert distance(after, released, part) > 0.02 * distance(after, before, part)


def test_six_updates_give_the_stored_weights(trained) -> None:
    before, after = trained
    stored = load_file(STORED)
    assert stored.keys() == after.keys()
    for part in PARTS:
        assert distance(stored, after, part) < 1e-3 * distance(after, before, part), part


if __name__ == "__main__":
    torch.set_num_threads(1)
    save_file(six_updates(learner())[1], STORED)
