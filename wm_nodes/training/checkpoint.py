"""Checkpoints of a run: weights, and the state that continues training bit for bit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from wm_models.weights.manifest import Manifest, WeightsError
from wm_models.weights.store import WeightStore, load_modules
from wm_nodes.atomic_file import replacing


class Checkpoints:
    """The checkpoints of a run, whole or absent.

    run/
      weights/          versions of the weights (:class:`WeightStore`)
      trainer/state.pt  the state beside one of these versions: {"version": int, ...}

    A version of weights may be newer than the state when the process was killed between the two:
    the run then resumes from the version that the state names.
    """

    def __init__(
        self, run: Path, keep: int, before_first_save: Callable[[], None] | None = None
    ) -> None:
        """`before_first_save` is called once, before this process writes its first weights."""
        self.store = WeightStore(run / "weights", keep=keep)
        self._run, self._state = run.name, run / "trainer" / "state.pt"
        self._before_first_save = before_first_save
        self.version: int | None = None  # of the checkpoint to resume from
        self.updates = 0  # at that checkpoint

    def exists(self) -> bool:
        return self._state.exists()

    def weights_folder(self) -> Path:
        """Return the folder of the weights to resume from."""
        return self.store.path(self._load("cpu")["version"])

    def save_weights(self, modules: Mapping[str, nn.Module], **about: Any) -> Manifest:
        """Write the next version of the weights; `about` are the other fields of its manifest.

        The checkpoint to resume from stays the one before until write_state().
        """
        if self._before_first_save is not None:
            self._before_first_save()
            self._before_first_save = None
        version = (self.store.latest() or 0) + 1
        return self.store.save(modules, Manifest(version=version, parent=self.version, **about))

    def write_state(self, manifest: Manifest, state: Mapping[str, Any]) -> None:
        """Make a version of the weights, with this state, the checkpoint to resume from."""
        with replacing(self._state) as aside, aside.open("wb") as file:
            torch.save({"version": manifest.version, **state}, file)
        self.version, self.updates = manifest.version, manifest.step

    def load(
        self, modules: Mapping[str, nn.Module], preset: str, device: str
    ) -> tuple[Manifest, dict[str, Any]]:
        """Load the newest checkpoint's weights into the modules; return its manifest and state.

        WeightsError: the run was trained with another preset.
        """
        state = self._load(device)
        manifest = load_modules(self.store.path(state["version"]), modules)
        if manifest.preset != preset:
            raise WeightsError(
                f"run {self._run}: got model {preset!r}, expected {manifest.preset!r}, with which "
                "it was trained. Give the same model, or another run."
            )
        self.version, self.updates = manifest.version, manifest.step
        return manifest, state

    def _load(self, device: str) -> dict[str, Any]:
        state: dict[str, Any] = torch.load(self._state, map_location=device, weights_only=True)
        return state
