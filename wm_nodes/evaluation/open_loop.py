"""Open-loop prediction: a few frames observed, the rest imagined from the actions, as pixels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from wm_datasets.images import CropResize
from wm_datasets.spec import LogSpec
from wm_models.interface.action_scaling import ActionAdapter
from wm_models.interface.embodiment import IMAGE
from wm_models.interface.world_model import WorldModel
from wm_nodes.robots.robot import Image


@dataclass(frozen=True)
class Prediction:
    """Truth and prediction over T frames, of which the first `context` were observed."""

    truth: Image  # (T, H, W, 3); of several cameras one below the other
    predicted: Image  # (T, H, W, 3); reconstructions of the observed frames
    reward: npt.NDArray[np.float32]  # (T,) received on arriving at each frame
    predicted_reward: npt.NDArray[np.float32] | None  # (T,)
    context: int
    start: int  # agent step of the episode at which frame 0 was taken

    def figures(self) -> dict[str, float | int]:
        """Return the errors over the imagined frames, and that of a model that predicts no motion.

        Squared errors are of pixels in 0..1. `frozen` repeats the last observed frame.
        """
        truth = self.truth / 255.0
        imagined = np.square(self.predicted / 255.0 - truth)[self.context :]
        frozen = np.square(truth[self.context - 1] - truth[self.context :])
        figures: dict[str, float | int] = {
            "context_frames": self.context,
            "imagined_frames": len(self.truth) - self.context,
            "mse": float(imagined.mean()),
            "mse_frozen": float(frozen.mean()),
        }
        if self.predicted_reward is not None:
            error = np.abs(self.predicted_reward - self.reward)[self.context :]
            figures["reward_mean_error"] = float(error.mean())
        return figures


def image_fields(model: WorldModel, camera: str) -> dict[str, str]:
    """Return the log's field of each of the model's images; `camera`: that of a model that sees
    one."""
    keys = _shown(model)
    return {key: key if model.spec.cameras else f"{key}/{camera}" for key in keys}


def _shown(model: WorldModel) -> tuple[str, ...]:
    """Return the keys of the decoded images, also of a model that sees none and decodes one."""
    return model.spec.image_keys or (IMAGE,)


@torch.no_grad()
def predict(
    model: WorldModel,
    rows: Mapping[str, npt.NDArray[Any]],
    *,
    context: int = 5,
    start: int = 0,
    seed: int = 0,
) -> Prediction:
    """Filter `context` frames of consecutive log rows of one episode, then imagine the others.

    rows: those of `fields_to_predict`: image (T, H, W, 3) uint8 (of several cameras each under its
    key), action (T, A), and where the log has them reward (T,) and proprio (T, P). A model of
    videos gets no action. A model with a frameskip takes every such row. The filter starts again at
    row 0. Equal seeds give equal predictions.
    """
    rows = _model_rows(rows, model)
    keys = _shown(model)
    frames = len(rows[keys[0]])
    if not 1 <= context < frames:
        raise ValueError(f"context: got {context}, expected 1 to {frames - 1} of {frames} frames.")
    device = next(model.parameters()).device
    generator = torch.Generator(device).manual_seed(seed)
    obs = {key: _on(rows[key], key, model, device) for key in model.spec.obs_keys}
    done = torch.as_tensor(np.asarray(rows["action"], np.float32), device=device)
    arriving = torch.cat([torch.zeros_like(done[:1]), done[:-1]])  # (T, A) led to frame t
    state = model.initial(1, device)
    images, rewards = [], []
    for t in range(frames):
        action = arriving[t : t + 1]
        if t < context:
            first = torch.tensor([t == 0], device=device)
            observation = {key: value[t : t + 1] for key, value in obs.items()}
            state = model.observe(state, action, observation, first, generator=generator)
        else:
            state = model.step(state, action, generator=generator)
        decoded = model.decode(state)
        image = torch.cat([decoded[key][0] for key in keys], 1)  # (3, n H, W)
        images.append(image.float().clamp(0, 1).cpu())
        if model.spec.has_reward:
            rewards.append(float(model.readout(state, frozenset({"reward"}))["reward"][0]))
    predicted = (torch.stack(images) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    height, width = predicted.shape[1] // len(keys), predicted.shape[2]
    return Prediction(
        truth=np.concatenate([_resized(rows[key], height, width) for key in keys], 1),
        predicted=predicted,
        reward=np.concatenate([[0.0], rows["reward"][:-1]]).astype(np.float32),
        predicted_reward=np.array(rewards, np.float32) if rewards else None,
        context=context,
        start=start,
    )


def fields_to_predict(model: WorldModel, specs: Sequence[LogSpec], camera: str) -> dict[str, str]:
    """Return name in `rows` -> field of each of these logs, for `predict`. camera: that of a model
    that sees one."""
    fields = image_fields(model, camera)
    fields |= {"action": "action"} if model.spec.uses_actions else {}
    fields |= {"reward": "reward"} if all(spec.reward for spec in specs) else {}
    fields |= {"proprio": "proprio"} if "proprio" in model.spec.obs_keys else {}
    return fields


def _model_rows(
    rows: Mapping[str, npt.NDArray[Any]], model: WorldModel
) -> dict[str, npt.NDArray[Any]]:
    """Rows at the model's rate and in its units: `frameskip` actions concatenated, rewards summed;
    remaining rows at the end are left out."""
    skip = model.spec.frameskip
    shown = len(rows[_shown(model)[0]])
    frames = (shown - 1) // skip + 1
    whole = (frames - 1) * skip
    out = {k: rows[k][: whole + 1 : skip] for k in rows if k not in ("action", "reward")}
    if model.spec.uses_actions:
        done = torch.as_tensor(np.asarray(rows["action"][:whole], np.float32))
        done = ActionAdapter.of(model).from_robot(done.unflatten(0, (frames - 1, skip)))
    else:
        done = torch.zeros(frames - 1, model.spec.action_dim)
    out["action"] = np.concatenate([done.numpy(), np.zeros((1, done.shape[1]), np.float32)])
    reward = np.asarray(rows.get("reward", np.zeros(shown)), np.float32)
    brought = reward[:whole].reshape(frames - 1, skip).sum(1)
    out["reward"] = np.concatenate([brought, np.zeros(1, np.float32)])
    return out


def draw_prediction(
    prediction: Prediction, path: str | Path, *, every: int = 5, title: str = ""
) -> None:
    """Write truth above prediction, every k-th frame, and the rewards below, as PNG."""
    from matplotlib.figure import Figure

    shown = sorted({prediction.context - 1, *range(0, len(prediction.truth), every)})
    figure = Figure(figsize=(1.1 * len(shown) + 1, 4.4), layout="constrained")
    axes = figure.subplots(3, len(shown), height_ratios=(1, 1, 0.8), squeeze=False)
    for column, t in enumerate(shown):
        observed = t < prediction.context
        for row, frames in enumerate((prediction.truth, prediction.predicted)):
            axis = axes[row, column]
            axis.imshow(frames[t], interpolation="nearest")
            axis.set_xticks([])
            axis.set_yticks([])
            for edge in axis.spines.values():
                edge.set(color="tab:green" if observed else "tab:orange", linewidth=2)
        axes[0, column].set_title(f"{prediction.start + t}", fontsize=9)
    axes[0, 0].set_ylabel("truth")
    axes[1, 0].set_ylabel("prediction")
    for axis in axes[2]:
        axis.remove()
    _draw_rewards(figure.add_subplot(axes[2, 0].get_gridspec()[2, :]), prediction)
    legend = f"green: {prediction.context} frames observed, orange: imagined from the actions alone"
    figure.suptitle(f"{title} Agent steps; {legend}", fontsize=10)
    figure.savefig(path, dpi=110)


def _draw_rewards(axis: Any, prediction: Prediction) -> None:
    steps = prediction.start + np.arange(len(prediction.truth))
    axis.plot(steps, prediction.reward, color="black", label="reward, true")
    if prediction.predicted_reward is not None:
        axis.plot(steps, prediction.predicted_reward, color="tab:orange", label="predicted")
    axis.axvspan(steps[0], steps[prediction.context - 1], color="tab:green", alpha=0.2)
    axis.set(xlabel="agent step", xlim=(steps[0], steps[-1]))
    axis.legend(fontsize=8, loc="upper left")


def _on(
    values: npt.NDArray[Any], key: str, model: WorldModel, device: torch.device
) -> torch.Tensor:
    if key in model.spec.image_keys:
        values = _resized(values, *model.spec.obs_keys[key][1:])
    return torch.as_tensor(np.ascontiguousarray(values), device=device)


def _resized(images: Image, height: int, width: int) -> Image:
    """Return (T, height, width, 3); the same array where the size fits."""
    if images.shape[1:3] == (height, width):
        return images
    return np.stack([CropResize(height, width)(image) for image in images])
