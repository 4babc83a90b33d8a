"""What a run trains, built once its logs hold enough rows: model, learner and batches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from wm_models.interface.action_scaling import ActionAdapter
from wm_models.interface.embodiment import Embodiment
from wm_models.interface.learner import Learner
from wm_models.interface.overrides import resolved
from wm_models.interface.preset import Preset
from wm_models.interface.world_model import WorldModel
from wm_models.registry import is_action_free, preset
from wm_models.weights.manifest import Manifest, WeightsError
from wm_models.weights.store import load_modules, read_manifest, read_weights
from wm_nodes.evaluation.held_out import HeldOut
from wm_nodes.robots.cameras.names import camera_names, joined
from wm_nodes.training.batches import Batches, log_fields
from wm_nodes.training.camera import choose_cameras, choose_videos
from wm_nodes.training.config import TrainingConfig, TrainingError
from wm_nodes.training.embodiment_stats import measure_embodiment
from wm_nodes.training.episode_returns import AllReturns
from wm_nodes.training.logs import TrainingLogs

Names = tuple[str, ...]  # of cameras
PRETRAINED = ("encoder", "pretrained")  # entries of a manifest about weights trained elsewhere


@dataclass
class Setup:
    """The parts that one run's updates work on."""

    preset: Preset
    embodiment: Embodiment
    model: WorldModel
    learner: Learner
    cameras: tuple[str, ...]  # of the readers, that the model sees; empty: it uses no image
    camera_setting: str  # how the manifest names them; of a model of videos: what was asked for
    batches: Batches
    returns: AllReturns
    pretrained: Mapping[str, Any]  # entries of the manifest about weights trained elsewhere

    def load_pretrained(self, folder: Path) -> None:
        """Start from the weights of another run: the learner skips its first phases."""
        manifest = load_modules(folder, self.model.modules_by_name())
        self.take_pretrained(manifest)
        self.learner.begin_with(manifest.step)

    def take_pretrained(self, manifest: Manifest) -> None:
        """Keep the entries about weights trained elsewhere, for the manifests to come."""
        self.pretrained = {k: manifest.extra[k] for k in PRETRAINED if k in manifest.extra}

    def manifest_entries(self, logs: TrainingLogs) -> dict[str, Any]:
        """Return the entries of a manifest besides version, parent and metrics."""
        spec = logs.readers[0].spec
        return {
            "preset": self.preset.name,
            "action_dim": self.embodiment.action_dim,
            "body": self.embodiment.to_json(),
            "settings": dict(self.preset.settings),
            "step": self.learner.updates,
            "extra": {
                "task": spec.task,
                "robot": spec.robot,
                **dict(spec.extra),
                "camera": self.camera_setting,
                "config": resolved(self.preset),
                **self.pretrained,
            },
        }


def build_setup(
    config: TrainingConfig, logs: TrainingLogs, resume_from: Path | None, device: str
) -> Setup:
    """Build model, learner and batches for open logs; weights are loaded by the caller.

    `resume_from` is the folder of the checkpoint's weights, None for a new run. The embodiment,
    the settings of the preset and the camera are those of the weights, where there are any.
    """
    resumed = resume_from is not None
    varied = preset(config.model).varied(config.settings)
    manifest = None
    if weights := resume_from or config.weights:
        manifest = _fitting_manifest(weights, logs)
        kept = {
            name: value
            for name, value in manifest.settings.items()
            if resumed or not name.startswith("learner.")
        }
        varied = preset(config.model).varied({**kept, **config.settings})
    requested = _names(config.camera)
    embodiment = manifest.embodiment if manifest else _measured(varied, logs)
    if manifest is None and len(requested) > 1 and not varied.action_free:
        embodiment = replace(embodiment, cameras=requested)
    model = varied.build(embodiment, config.seed)
    cameras: Names = ()
    setting = ""
    if model.spec.image_size is not None:
        before = _names(str(manifest.extra.get("camera", ""))) if manifest else ()
        run = config.run.name if resumed else ""
        show = _show_videos if varied.action_free else _show_cameras
        cameras, setting = show(logs, model.spec.image_size, requested, before, run, varied.name)
    pretrained = {} if manifest else varied.pretrain(model, read_weights)
    learner = varied.build_learner(model, config.seed, device)
    logs.require_fields(log_fields(learner.fields, cameras).values(), varied.name)
    actions = ActionAdapter.of(model)
    return Setup(
        preset=varied,
        embodiment=embodiment,
        model=model,
        learner=learner,
        cameras=cameras,
        camera_setting=setting,
        batches=Batches(
            list(zip(logs.readers, logs.shares, strict=True)),
            learner.fields,
            cameras,
            actions,
            varied.sampling,
            config,
            device,
        ),
        returns=AllReturns(
            logs.readers[: config.environments],
            episodes=HeldOut(config.hold_out).learned if config.hold_out else None,
        ),
        pretrained=pretrained,
    )


def _names(camera: str) -> tuple[str, ...]:
    """Return the cameras with commas between. TrainingError: an empty or a repeated name."""
    try:
        return camera_names(camera)
    except ValueError as error:
        raise TrainingError(str(error)) from None


def _measured(preset: Preset, logs: TrainingLogs) -> Embodiment:
    """Return the embodiment of a new model."""
    if preset.action_free:
        return Embodiment.action_free(logs.readers[0].spec.control_period_s)
    return measure_embodiment(logs.readers)


def _show_cameras(
    logs: TrainingLogs, size: tuple[int, int], requested: Names, before: Names, run: str, model: str
) -> tuple[Names, str]:
    """Let the logs show the cameras that the model sees; return their names and the setting to
    record. before: cameras of the weights; run: name of a run that is resumed; empty: none."""
    cameras = logs.readers[0].spec.cameras
    chosen = choose_cameras(
        cameras, size, requested=requested, trained_with=before, resumed_run=run, model=model
    )
    logs.resize(chosen, *size)
    return chosen, joined(chosen)


def _show_videos(
    logs: TrainingLogs, size: tuple[int, int], requested: Names, before: Names, run: str, model: str
) -> tuple[Names, str]:
    """Let every camera that a model of videos learns from be a log of its own; return their common
    name, and the setting to record. Arguments are those of _show_cameras."""
    chosen = choose_videos(
        logs.readers, size, requested=requested, recorded=before, resumed_run=run, model=model
    )
    return (logs.split_by_camera(chosen, *size),), joined(requested or before)


def _fitting_manifest(folder: Path, logs: TrainingLogs) -> Manifest:
    """Return the manifest of weights. WeightsError: the log has another action space."""
    manifest = read_manifest(folder)
    action = logs.readers[0].spec.action
    if is_action_free(manifest.preset) or action is None:
        return manifest
    if manifest.action_dim != len(action):
        raise WeightsError(
            f"weights: got {folder} for {manifest.action_dim} action dimensions, expected "
            f"{len(action)} as in the log: {', '.join(action.names)}."
        )
    kinds = {True: "discrete", False: "continuous"}
    trained, logged = kinds[manifest.embodiment.discrete], kinds[action.discrete]
    if trained != logged:
        raise WeightsError(
            f"weights: got {folder} for {trained} actions, expected {logged} ones as in the log."
        )
    return manifest
