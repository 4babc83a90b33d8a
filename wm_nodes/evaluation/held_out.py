"""Prediction errors of a model on held-out episodes: open loop, pixels and reward."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from wm_datasets.errors import LogEmptyError
from wm_datasets.log.reader import LogReader
from wm_datasets.sampling.sampler import Sampler
from wm_models.interface.world_model import WorldModel
from wm_nodes.evaluation.open_loop import fields_to_predict, predict

_GOLDEN = 0.6180339887498949  # multiples of it, modulo 1, fill the unit interval evenly


@dataclass(frozen=True)
class HeldOut:
    """A share of every log's episodes that is held out of training.

    Whether an episode belongs to it follows from the number of its first row alone: the same in
    every process, whatever else the log holds or drops.
    """

    share: float

    def held(self, episodes: np.ndarray) -> np.ndarray:
        """Return a mask (E,) of the episodes that are held out."""
        starts = np.asarray(episodes["start"], np.float64)
        return (starts + 1) * _GOLDEN % 1.0 < self.share

    def learned(self, episodes: np.ndarray) -> np.ndarray:
        """Return a mask (E,) of the episodes to learn from."""
        return ~self.held(episodes)


def evaluate_held_out(
    model: WorldModel,
    readers: Sequence[LogReader],
    cameras: Sequence[str],
    held_out: HeldOut,
    *,
    windows: int = 8,
    length: int = 30,
    context: int = 5,
    seed: int = 0,
) -> dict[str, float]:
    """Filter `context` frames of held-out windows, imagine the rest; return the mean errors.

    A frame is a step of the model: `frameskip` rows. A model without a decoder has no figures.
    Equal weights, logs and seed give equal figures; the learner's state does not change.
    LogEmptyError where no episode is held out, or none is long enough.
    """
    if not model.spec.has_decoder:
        return {}
    skip = model.spec.frameskip
    fields = fields_to_predict(model, [reader.spec for reader in readers], cameras[0])
    sampler = Sampler(
        [(reader, 1.0) for reader in readers], batch=windows, length=1, seed=seed,
        fields=fields, join=False, per_episode=True, episodes=held_out.held, cache_bytes=1,
        disk_bytes=0,
    )  # fmt: skip
    length, least = min((length - 1) * skip + 1, sampler.longest), context * skip + 1
    if length < least:
        raise LogEmptyError(
            f"hold_out: got {held_out.share:g} of each log's episodes, none of {least} rows or "
            "more, expected one. Hold out more, or record more episodes."
        )
    batch = sampler.sample(length=length)
    predictions = [
        predict(model, {k: v[i] for k, v in batch.items()}, context=context, seed=seed)
        for i in range(windows)
    ]
    errors = [prediction.figures() for prediction in predictions]
    figures = {
        f"heldout/{name}": float(np.mean([e[name] for e in errors]))
        for name in ("mse", "mse_frozen", "reward_mean_error")
        if name in errors[0]
    }
    guesses = [p.predicted_reward for p in predictions if p.predicted_reward is not None]
    if guesses:
        truth = np.concatenate([p.reward[context:] for p in predictions])
        guess = np.concatenate([g[context:] for g in guesses])
        figures["heldout/reward_correlation"] = correlation(truth, guess)
    return figures


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Pearson's r of two (n,) arrays; nan where one of them does not vary."""
    if a.std() == 0 or b.std() == 0:
        return float("nan")
    return float(np.corrcoef(a, b)[0, 1])
