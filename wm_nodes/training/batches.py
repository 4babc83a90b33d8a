"""Log rows to the batches that a learner takes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict

import torch
from torch import Tensor

from wm_datasets.log import LogReader
from wm_datasets.sampling.memory_cache import roomy
from wm_datasets.sampling.sampler import Sampler
from wm_datasets.spec import Source
from wm_models.interface.action_scaling import ActionAdapter
from wm_models.interface.learner import BatchSpec
from wm_models.interface.preset import Sampling
from wm_nodes.evaluation.held_out import HeldOut
from wm_nodes.training.config import TrainingConfig
from wm_nodes.training.device_cache import DeviceCache, pinned

DEMONSTRATORS = (Source.SCRIPT, Source.PERSON)  # whose actions are demonstrations


class Batches:
    """Batches of log windows in the model's units, from memory or from the device's cache.

    `logs` are readers with their shares of the windows, `fields` the learner's (see
    :class:`Learner`), `cameras` the logs' that the model sees.
    """

    def __init__(
        self,
        logs: Sequence[tuple[LogReader, float]],
        fields: frozenset[str],
        cameras: Sequence[str],
        actions: ActionAdapter,
        sampling: Sampling,
        config: TrainingConfig,
        device: str,
    ) -> None:
        stored = log_fields(fields, cameras)
        self._actions, self._with_demo = actions, "demo" in fields
        self.sampler = Sampler(
            logs,
            batch=1,
            length=1,  # draw() gives the size of each batch
            seed=config.seed,
            fields=stored,
            episodes=HeldOut(config.hold_out).learned if config.hold_out else None,
            **asdict(sampling),
            recency=config.recency or None,
            pooled=config.environments,
            cache_bytes=1 if config.resident_bytes else config.cache_bytes,
            disk_bytes=config.disk_bytes,
            allocate=pinned if config.pinned and device != "cpu" else roomy,
        )
        self._cache = (
            DeviceCache([reader for reader, _ in logs], stored, config.resident_bytes, device)
            if config.resident_bytes
            else None
        )

    def draw(self, specs: Mapping[str, BatchSpec]) -> dict[str, dict[str, Tensor]]:
        """Return the next batch of each name: {field: (B, T, ...)}; new log rows are included."""
        if self._cache is not None:
            self._cache.follow()
        self.sampler.refresh()
        return {name: self._batch(spec) for name, spec in specs.items()}

    def state_dict(self) -> str:
        """Return what continues the sequence of batches exactly, as JSON text."""
        return json.dumps(self.sampler.state_dict(), default=str)

    def load_state_dict(self, state: str) -> None:
        self.sampler.load_state_dict(json.loads(state))

    def _batch(self, spec: BatchSpec) -> dict[str, Tensor]:
        drawn = self.sampler.draw(spec.batch, spec.length)
        batch = self._cache.gather(*drawn) if self._cache is not None else {}
        if not batch:
            rows = self.sampler.sample(spec.batch, spec.length, drawn)
            batch = {name: torch.from_numpy(values) for name, values in rows.items()}
        if self._with_demo:
            source = batch.pop("source")
            demonstrated = torch.isin(source, source.new_tensor([int(s) for s in DEMONSTRATORS]))
            batch["demo"] = demonstrated & ~batch["is_last"]
        for name in batch.keys() & {"action", "commanded"}:
            batch[name] = self._actions.scale(batch[name])
        return batch


def log_fields(fields: frozenset[str], cameras: Sequence[str]) -> dict[str, str]:
    """Return the log's field of each name in a batch; "demo" is computed from two fields.

    "image" is that of the only camera; of several, the names are those of the log.
    """
    more = {"source", "is_last"} if "demo" in fields else set()
    names = sorted((fields - {"image", "demo"}) | more)
    image = {"image": f"image/{cameras[0]}"} if "image" in fields else {}
    return {**image, **{name: name for name in names}}
