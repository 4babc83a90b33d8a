"""Learn from a replay log: sample, update, publish weights, resume. The trainer node and `wm train`
are thin shells around :class:`Learning`."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from wm_datasets.errors import LogRowError
from wm_datasets.log import LogReader
from wm_datasets.remote.object_store import is_url
from wm_datasets.remote.reader import open_log
from wm_datasets.sampling.memory_cache import roomy
from wm_datasets.sampling.resized_log import resized
from wm_datasets.sampling.sampler import Sampler
from wm_datasets.spec import Source
from wm_models.interface.action_scaling import ActionAdapter
from wm_models.interface.embodiment import Body
from wm_models.interface.learner import BatchSpec, LearnsFromReturns
from wm_models.interface.overrides import resolved
from wm_models.registry import preset
from wm_models.weights.store import (
    Manifest,
    WeightsError,
    WeightStore,
    load_modules,
    read_manifest,
)
from wm_nodes.agent.device import pick_device
from wm_nodes.atomic_file import replacing
from wm_nodes.evaluation.held_out import HeldOut, evaluate_held_out
from wm_nodes.training.batches import _log_fields, absolute
from wm_nodes.training.config import LearnConfig, LearnError
from wm_nodes.training.device_cache import ResidentRows, pinned
from wm_nodes.training.embodiment_stats import measure_body
from wm_nodes.training.episode_returns import EpisodeReturns
from wm_nodes.training.metrics import MetricsRecorder, Speed
from wm_nodes.training.trainable import ACTION, mixture, obstacle

FOREIGN = ("encoder",)  # what a manifest tells of weights that were trained elsewhere
DEMONSTRATORS = (Source.SCRIPT, Source.PERSON)  # whose actions are worth imitating


@dataclass(frozen=True)
class Progress:
    """Where learning stands."""

    updates: int
    decisions: int
    phase: str  # waiting, autoencoder, world_model, behaviour, done
    updates_per_s: float
    version: int | None
    metrics: Mapping[str, float]
    rollbacks: int


class Learning:
    """Learn as the log grows. Call :meth:`step` again and again; :meth:`close` saves.

    One thread does all that; :attr:`progress` may be read from others.
    """

    def __init__(
        self,
        config: LearnConfig,
        publish: Callable[[Manifest, Path], None] | None = None,
        evaluate: Callable[[Path], Mapping[str, float]] | None = None,
        on_first_save: Callable[[], None] = lambda: None,
    ) -> None:
        """`publish` is called with every version; `evaluate` gets the folder of one each
        `eval_every` updates, and returns metrics; `on_first_save` is called once, before the first
        save of this process."""
        self.config = config
        self.preset = preset(config.model).varied(config.settings)
        self.device = str(pick_device(config.device))
        self.store = WeightStore(config.run / "weights", keep=config.keep)
        self.metrics: dict[str, float] = {}
        self.rollbacks = 0
        self._publish = publish or (lambda manifest, path: None)
        self._evaluate_weights = evaluate
        self._on_first_save: Callable[[], None] | None = on_first_save
        self._held_out = HeldOut(config.hold_out)
        self.evaluation: Mapping[str, float] = {}  # the newest
        self._readers: list[LogReader] = []
        self._rows = 0  # to learn from in the log that sets the pace, when last looked at
        self._counted = (0, 0)  # rows of it that were looked at, and those of evaluation episodes
        self._state = config.run / "trainer" / "state.pt"
        pace = self.preset.pace
        self._initial = pace.initial
        self._origin = (pace.initial, pace.prefill)  # updates, decisions: the ratio begins here
        self._moved = False  # whether it was set anew, as the run went on elsewhere
        self._version: int | None = None
        self._kept = 0  # updates in it
        self._speed = Speed()
        self._published_at = time.monotonic()
        self._recorder = MetricsRecorder(config.run / "metrics", config.log_every)
        self._ready = False
        self._made_with: Mapping[str, Any] = {}  # of weights to begin with or to go on with
        self.resized_from: tuple[int, int] | None = None  # size of the log's images, if another

    @property
    def progress(self) -> Progress:
        """What is known without looking at the log: any thread may ask."""
        return Progress(
            updates=self.learner.updates if self._ready else 0,
            decisions=self._rows,
            phase=self._phase(),
            updates_per_s=self._speed.rate,
            version=self._version,
            metrics=self.metrics,
            rollbacks=self.rollbacks,
        )

    @property
    def robot(self) -> str:
        """Name of the robot that the logs are of; empty before they are there."""
        return self._readers[0].spec.robot if self._readers else ""

    @property
    def done(self) -> bool:
        return bool(self.config.steps) and self._ready and self.learner.updates >= self.config.steps

    def step(self) -> bool:
        """Make one update if one is due; False when there is nothing to do but wait."""
        if not self._ready and not self._open():
            return False
        if self.done or not self._due():
            return False
        try:
            batches = self._batches()
            if isinstance(self.learner, LearnsFromReturns) and (ended := self._returns.new()):
                self.learner.episodes_ended(ended)
            self.metrics = self.learner.update(batches)
        except FloatingPointError as error:
            self._roll_back(error)
            return True
        self._speed.tick()
        self._recorder.add(self.learner.updates, self.metrics)
        if self.config.eval_every and self.learner.updates % self.config.eval_every == 0:
            self._evaluate()
        if self.learner.updates >= self.learner.initial_updates and self._publish_due():
            self.save()
        return True

    def save(self) -> None:
        """Publish the weights as a new version, and keep what is needed to resume exactly."""
        if self._ready and self.learner.updates:
            self._keep(self._write_weights())

    def _write_weights(self) -> Manifest:
        if self._on_first_save is not None:
            self._on_first_save()
            self._on_first_save = None
        spec = self._readers[0].spec
        return self.store.save(
            self.model.modules_by_name(),
            Manifest(
                version=(self.store.latest() or 0) + 1,
                preset=self.preset.name,
                action_dim=self.body.action_dim,
                body=self.body.to_json(),
                settings=dict(self.preset.settings),
                step=self.learner.updates,
                parent=self._version,
                source_log=Path(self.config.logs[0][0]).name,
                metrics=self.metrics,
                extra={
                    "task": spec.task,
                    "robot": spec.robot,
                    **dict(spec.extra),
                    "camera": self.camera,
                    "config": resolved(self.preset),
                    **self._pretrained,
                },
            ),
        )

    def _keep(self, manifest: Manifest) -> None:
        """Make a version of weights the one to resume from, and publish it."""
        self._version, self._kept = manifest.version, self.learner.updates
        state = {
            "version": manifest.version,
            "learner": self.learner.state_dict(),
            "sampler": json.dumps(self.sampler.state_dict(), default=str),
            "logs": self._log_names(),
            "origin": list(self._origin),
            "returns": self._returns.after,
            "paced": self.config.pace,
            "counted": list(self._counted),
            "metrics": self._recorder.state_dict(),
        }
        _write_state(self._state, state)
        self._published_at = time.monotonic()
        if self.learner.updates >= self.learner.initial_updates:
            self._publish(manifest, self.store.path(manifest.version))

    def close(self) -> None:
        """Save what is not kept yet, and close the metrics."""
        if self._ready and self.learner.updates != self._kept:
            self.save()
        self._recorder.close()

    # ------------------------------------------------------------------------------------------

    def _open(self) -> bool:
        """Open logs and model once the log is there and holds the prefill."""
        if not self._readers:
            places = [place for place, _ in self.config.logs]
            if not all(is_url(place) or (Path(place) / "zarr.json").exists() for place in places):
                return False
            kept = self.config.download_bytes
            self._readers = [open_log(place, download_bytes=kept) for place in places]
            self._refuse_logs_without(ACTION)
            specs = [(reader.path, reader.spec) for reader in self._readers]
            if why := mixture(specs, self.config.allow_mixed):
                raise LearnError(why)
        resumed = self._state.exists()
        prefill = self.preset.pace.prefill if self.config.pace and not resumed else 1
        if self._decisions() < prefill:
            if not self.config.pace:
                self._refuse_evaluation(slice(1))
            return False
        self._refuse_evaluation(slice(1, None))
        if self.config.eval_every and self.config.hold_out:
            self._check_held_out()
        self.body = self._find_body(resumed)
        self.model = self.preset.build(self.body, self.config.seed)
        self._actions = ActionAdapter.of(self.model)
        self.camera = ""  # of a model that sees no image
        if self.model.spec.image_size is not None:
            self.camera = self._find_camera(resumed)
            self._resize_logs()
        fresh = not resumed and self.config.weights is None
        self._pretrained = self.preset.pretrain(self.model) if fresh else {}
        self.learner = self.preset.build_learner(self.model, self.config.seed, self.device)
        learned = self._held_out.learned if self.config.hold_out else None
        self._returns = EpisodeReturns(self._readers[0], episodes=learned)
        fields = _log_fields(self.learner.fields, self.camera)
        self._refuse_logs_without(fields.values())
        self.sampler = Sampler(
            list(zip(self._readers, [share for _, share in self.config.logs], strict=True)),
            batch=1,
            length=1,  # each batch says its own
            seed=self.config.seed,
            fields=fields,
            episodes=learned,
            **asdict(self.preset.sampling),
            recency=self.config.recency or None,
            cache_bytes=1 if self.config.resident_bytes else self.config.cache_bytes,
            disk_bytes=self.config.disk_bytes,
            allocate=pinned if self.config.pinned and self.device != "cpu" else roomy,
        )
        self._resident = (
            ResidentRows(self._readers, fields, self.config.resident_bytes, self.device)
            if self.config.resident_bytes
            else None
        )
        if resumed:
            self._resume()
        else:
            self._recorder.resume(0, {})  # of a run that was killed before it was saved
            if self.config.weights is not None:
                self._begin_with(self.config.weights)
        self._ready = True
        return True

    def _refuse_logs_without(self, fields: Collection[str]) -> None:
        for reader in self._readers:
            wanted = {name for name in fields if not name.startswith("image/")}
            if why := obstacle(reader.path, reader.spec, self.preset.name, wanted):
                raise LearnError(why)

    def _refuse_evaluation(self, which: slice) -> None:
        """Refuse logs of evaluation episodes alone: nothing would be drawn from them."""
        for (place, _), reader in list(zip(self.config.logs, self._readers))[which]:
            marks = reader.evaluation_rows()
            if len(marks) and marks.all():
                raise LearnError(
                    f"log: all {len(marks)} rows of {place} are of evaluation episodes, "
                    "which are never learned from. Give a log of training episodes."
                )

    def _check_held_out(self) -> None:
        tables = [r.episodes[~r.is_evaluation(r.episodes)] for r in self._readers]
        counts = [int(self._held_out.held(table).sum()) for table in tables]
        if not any(counts):
            raise LearnError(
                f"hold_out: {self.config.hold_out:g} of the episodes is none of those in the logs. "
                "Hold out more, or record more episodes."
            )

    def _find_body(self, resumed: bool) -> Body:
        """The robot that the model is for: as its weights know it, else as the logs show it."""
        begin = self.config.weights
        if resumed:
            state = torch.load(self._state, map_location="cpu", weights_only=True)
            begin = self.store.path(state["version"])
        if begin is None:
            return measure_body(self._readers)
        manifest = read_manifest(begin)
        kept = {
            name: value
            for name, value in manifest.settings.items()
            if resumed or not name.startswith("learner.")
        }
        self.preset = preset(self.config.model).varied({**kept, **self.config.settings})
        self._made_with = manifest.extra
        action = self._readers[0].spec.action
        assert action is not None
        if manifest.action_dim != len(action):
            raise WeightsError(
                f"weights: {begin} are for {manifest.action_dim} action dimensions, the log has "
                f"{len(action)}: {', '.join(action.names)}."
            )
        return manifest.robot

    def _find_camera(self, resumed: bool) -> str:
        """The log's camera that the model sees: the one asked for, else the one that the weights
        learned from, else the first of the model's image size, else the only one."""
        cameras, wanted = self._readers[0].spec.cameras, self.config.camera
        known = str(self._made_with.get("camera", ""))
        if resumed and wanted not in ("", known):
            raise LearnError(
                f"camera: got {wanted!r}, but run {self.config.run.name} learns from {known!r}. "
                "Leave it out, or begin another run."
            )
        sizes = ", ".join(f"{name!r} of {h}x{w}" for name, (h, w, _) in cameras.items()) or "none"
        if wanted and wanted not in cameras:
            raise LearnError(f"camera: got {wanted!r}, expected a camera of the log: {sizes}.")
        if wanted or known in cameras:
            return wanted or known
        size = self._image_size()
        fitting = [name for name, shape in cameras.items() if shape == (*size, 3)]
        if fitting or len(cameras) == 1:
            return fitting[0] if fitting else next(iter(cameras))
        raise LearnError(
            f"camera: the log has {sizes}, model {self.preset.name!r} sees one of "
            f"{size[0]}x{size[1]}. Name the one that it is to see (--camera): images of another "
            "size are resized."
        )

    def _image_size(self) -> tuple[int, int]:
        """Height and width of the images that the model sees."""
        _, height, width = self.model.spec.obs_keys["image"]
        return height, width

    def _resize_logs(self) -> None:
        """Let every log show the camera's images as the model sees them."""
        size, field = self._image_size(), f"image/{self.camera}"
        for reader in self._readers:
            if field not in reader.spec.fields:
                raise LearnError(
                    f"log: {reader.path} has no camera {self.camera!r}, which the model sees; it "
                    f"has {list(reader.spec.cameras)}."
                )
        shape = self._readers[0].spec.cameras[self.camera]
        self.resized_from = None if shape[:2] == size else shape[:2]
        self._readers = [resized(reader, self.camera, *size) for reader in self._readers]

    def _begin_with(self, folder: Path) -> None:
        """Go on from weights of another run: their first phases are behind them."""
        manifest = load_modules(folder, self.model.modules_by_name())
        self._pretrained = {k: manifest.extra[k] for k in FOREIGN if k in manifest.extra}
        self.learner.begin_with(manifest.step)

    def _resume(self) -> None:
        state = torch.load(self._state, map_location=self.device, weights_only=True)
        manifest = load_modules(self.store.path(state["version"]), self.model.modules_by_name())
        if manifest.preset != self.preset.name:
            raise WeightsError(
                f"run {self.config.run.name}: it was trained as {manifest.preset!r}, not "
                f"{self.preset.name!r}. Give the same model, or another run."
            )
        self._pretrained = {k: manifest.extra[k] for k in FOREIGN if k in manifest.extra}
        self.learner.load_state_dict(state["learner"])
        same = state.get("logs", self._log_names()) == self._log_names()
        if same:
            self._returns.after = state.get("returns", 0)
            self.sampler.load_state_dict(json.loads(state["sampler"]))
        if same and (state.get("paced", True) or not self.config.pace):
            self._origin = tuple(state.get("origin", self._origin))
            if not self._ready:  # after a roll-back the newer count holds: it is the log's
                self._counted = tuple(state.get("counted", self._counted))
        elif not self._moved:
            self._move()
        self._version, self._kept = state["version"], self.learner.updates
        self._recorder.resume(self.learner.updates, state.get("metrics", {}))
        if self.learner.updates >= self.learner.initial_updates:
            self._publish(manifest, self.store.path(self._version))

    def _evaluate(self) -> None:
        """Judge the model; its own random numbers leave those of learning alone."""
        found: dict[str, float] = {}
        if self.config.hold_out:
            found |= evaluate_held_out(
                self.model, self._readers, self.camera, self._held_out, seed=self.config.seed
            )
        manifest = None
        if self._evaluate_weights is not None:
            manifest = self._write_weights()
            found |= self._evaluate_weights(self.store.path(manifest.version))
        self.evaluation = found
        self._recorder.write(self.learner.updates, found)
        if manifest is not None:  # only now: a kill before would have lost the figures
            self._keep(manifest)

    def _move(self) -> None:
        """Go on with other logs than before, or on line after off line: the ratio of decisions to
        updates counts from here. A log that is alone must hold the prefill first."""
        self._moved = True
        prefill = self.preset.pace.prefill if len(self._readers) == 1 else 0
        self._origin = (max(self.learner.updates, self._initial), max(self._rows, prefill))

    def _log_names(self) -> list[str]:
        return [absolute(place) for place, _ in self.config.logs]

    def _roll_back(self, error: FloatingPointError) -> None:
        """Return to the last good version; without one, or after three returns, give up."""
        self.rollbacks += 1
        if not self._state.exists() or self.rollbacks > 3:
            raise LearnError(
                f"learning diverged at update {self.learner.updates}: {error} "
                "Lower the learning rates, or look at the log for outliers (wm log info)."
            ) from error
        self._resume()

    @property
    def kept_up(self) -> int:
        """Decisions that the updates made so far are enough for, by the preset's ratio."""
        updates, decisions = self._origin
        made = max(0, self.progress.updates - updates)
        return decisions + made * self.preset.pace.train_every

    def _due(self) -> bool:
        """Is an update due, by the preset's ratio of decisions to updates?"""
        if not self.config.pace:
            return True
        if self.learner.updates < self._initial:
            return self._decisions() >= self._origin[1]
        return self.kept_up < self._decisions()

    def _publish_due(self) -> bool:
        first = self.learner.updates == self.learner.initial_updates
        return first or time.monotonic() - self._published_at >= self.config.publish_s

    def _batches(self) -> dict[str, dict[str, Tensor]]:
        if self._resident is not None:
            self._resident.follow()
        self.sampler.refresh()
        return {name: self._batch(spec) for name, spec in self.learner.batch_specs.items()}

    def _batch(self, spec: BatchSpec) -> dict[str, Tensor]:
        drawn = self.sampler.draw(spec.batch, spec.length)
        rows = self._resident.gather(*drawn) if self._resident is not None else {}
        if not rows:
            found = self.sampler.sample(spec.batch, spec.length, drawn)
            rows = {name: torch.from_numpy(value) for name, value in found.items()}
        if "demo" in self.learner.fields:
            source = rows.pop("source")
            demonstrated = torch.isin(source, source.new_tensor([int(s) for s in DEMONSTRATORS]))
            rows["demo"] = demonstrated & ~rows["is_last"]
        return self._in_model_units(rows)

    def _in_model_units(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        for name in batch.keys() & {"action", "commanded"}:
            batch[name] = self._actions.scale(batch[name])
        return batch

    def _decisions(self) -> int:
        """Rows of the log that sets the pace, those of evaluation episodes left out."""
        if not self._readers:
            return 0
        reader = self._readers[0]
        reader.refresh()
        seen, evaluation = self._counted
        try:
            marks = reader.evaluation_rows()
        except LogRowError:  # the log's capacity dropped rows meanwhile: count at the next look
            return self._rows
        evaluation += int(marks[max(seen - reader.first, 0) :].sum())
        self._counted = (reader.length, evaluation)
        self._rows = reader.length - evaluation
        return self._rows

    def _phase(self) -> str:
        if not self._ready:
            return "waiting"
        if self.done:
            return "done"
        return self.learner.phase


def _write_state(path: Path, state: Mapping[str, Any]) -> None:
    with replacing(path) as aside, aside.open("wb") as file:
        torch.save(dict(state), file)
