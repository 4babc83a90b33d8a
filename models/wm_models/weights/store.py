"""Weights on disk: whole or absent, versioned, checked, and never pickled.

weights/
  0000000012/             one version
    manifest.json         preset, step, parent, metrics, sha256 of every file
    autoencoder.safetensors  world_model.safetensors  actor.safetensors  ...
  latest                  the newest version's number, moved last
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_bytes
from safetensors.torch import save as save_bytes
from torch import Tensor, nn

from wm_models.errors import ModelError
from wm_models.interface.world_model import WorldModel
from wm_models.nets.state_dicts import first_not_finite, misfit
from wm_models.registry import preset
from wm_models.weights.manifest import Manifest, WeightsError, parse_manifest


class WeightStore:
    """A folder of versions with a pointer to the newest; one writer, any number of readers."""

    def __init__(self, folder: str | Path, keep: int | None = None) -> None:
        self.folder = Path(folder)
        self.keep = keep  # newest versions to keep; None keeps all

    def path(self, version: int) -> Path:
        return self.folder / f"{version:010d}"

    def versions(self) -> list[int]:
        """Whole versions, oldest first."""
        if not self.folder.is_dir():
            return []
        return sorted(int(p.name) for p in self.folder.iterdir() if _number(p.name) and p.is_dir())

    def latest(self) -> int | None:
        """The version that the pointer names, or None when there is none yet."""
        pointer = self.folder / "latest"
        if not pointer.exists():
            return None
        with pointer.open(errors="replace") as stream:
            text = stream.read(100).strip()
        if not _number(text):
            raise WeightsError(
                f"weights: {pointer}: got {text!r}, expected the number of a version."
            )
        return int(text)

    def save(self, modules: Mapping[str, nn.Module], manifest: Manifest) -> Manifest:
        """Write one version aside, flush it, rename it into place, then move ``latest`` to it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        aside = self.folder / f".{manifest.version:010d}.{os.getpid()}"
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir()
        digests = {}
        for name, module in modules.items():
            data = save_bytes(
                {k: v.detach().cpu().contiguous() for k, v in module.state_dict().items()}
            )
            file, digest = f"{name}.safetensors", hashlib.sha256(data).hexdigest()
            digests[file] = digest
            if not self._linked(file, digest, aside):
                _write(aside / file, data)
        manifest = Manifest(**{**asdict(manifest), "sha256": digests})
        _write(aside / "manifest.json", json.dumps(_record(manifest), indent=1).encode())
        _sync_folder(aside)
        final = self.path(manifest.version)
        if final.exists():
            shutil.rmtree(final)
        aside.rename(final)
        _sync_folder(self.folder)
        pointer = self.folder / ".latest"
        _write(pointer, str(manifest.version).encode())
        pointer.replace(self.folder / "latest")
        _sync_folder(self.folder)
        self._drop_old()
        return manifest

    def _linked(self, file: str, digest: str, aside: Path) -> bool:
        """Share the file of the newest version where it holds the same, as frozen encoders do."""
        newest = self.latest()
        if newest is None:
            return False
        try:
            if read_manifest(self.path(newest)).sha256.get(file) != digest:
                return False
            os.link(self.path(newest) / file, aside / file)
        except (OSError, WeightsError):
            return False  # other file systems do without
        return True

    def _drop_old(self) -> None:
        if self.keep is not None:
            for version in self.versions()[: -self.keep]:
                shutil.rmtree(self.path(version), ignore_errors=True)


def read_manifest(folder: str | Path) -> Manifest:
    """The manifest of one version's folder (or of a store's newest version)."""
    folder = resolve(folder)
    return parse_manifest(folder / "manifest.json")


def resolve(folder: str | Path) -> Path:
    """The folder of one version: itself, or the newest version where a store is given."""
    folder = Path(folder)
    if (folder / "manifest.json").is_file():
        return folder
    version = WeightStore(folder).latest() if folder.is_dir() else None
    newest = folder if version is None else WeightStore(folder).path(version)
    if not (newest / "manifest.json").is_file():
        raise WeightsError(
            f"weights: nothing at {newest}. Right: a version's folder (with manifest.json) "
            "or a run's weights folder."
        )
    return newest


def load_modules(folder: str | Path, modules: Mapping[str, nn.Module]) -> Manifest:
    """Load files of one version into ``modules`` (all, or those that a node needs).

    Every file is checked against the manifest before the first module changes. WeightsError says
    what was wrong: a missing or truncated file, a foreign digest, weights of another preset, NaN.
    """
    folder = resolve(folder)
    manifest = read_manifest(folder)
    states = {name: _read(folder / f"{name}.safetensors", manifest) for name in modules}
    for name, module in modules.items():
        _check(name, module, states[name], manifest)
    for name, module in modules.items():
        module.load_state_dict(states[name])
    return manifest


def load_model(
    folder: str | Path, device: str | torch.device = "cpu"
) -> tuple[WorldModel, Manifest]:
    """Build the model that a version's manifest names and load all its weights."""
    manifest = read_manifest(folder)
    model = build(manifest)
    load_modules(folder, model.modules_by_name())
    return model.to(device).eval(), manifest


def read_weights(folder: str | Path) -> tuple[WorldModel, dict[str, Any]]:
    """The model of a version, and what it is, for the manifest of a run that begins with it."""
    model, manifest = load_model(folder)
    facts = {"preset": manifest.preset, "step": manifest.step, "sha256": dict(manifest.sha256)}
    return model, facts


def build(manifest: Manifest) -> WorldModel:
    """Return the model that a manifest describes, with fresh weights. ModelError."""
    try:
        return preset(manifest.preset).varied(manifest.settings).build(manifest.embodiment)
    except (ValueError, RuntimeError, AssertionError) as error:
        if isinstance(error, (ModelError, WeightsError)):
            raise
        raise WeightsError(
            f"weights: {manifest.preset!r} cannot be built for the manifest's robot ({error})."
        ) from None


def _read(path: Path, manifest: Manifest) -> dict[str, Tensor]:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise WeightsError(
            f"weights: {path} is missing; the manifest lists {sorted(manifest.sha256)}."
        ) from None
    digest = hashlib.sha256(data).hexdigest()
    expected = manifest.sha256.get(path.name)
    if digest != expected:
        raise WeightsError(
            f"weights: {path} is damaged or foreign: got sha256 {digest[:12]}, "
            f"expected {str(expected)[:12]} as in its manifest."
        )
    try:
        return load_bytes(data)
    except SafetensorError as error:
        raise WeightsError(f"weights: {path} is not a safetensors file ({error}).") from None


def _check(name: str, module: nn.Module, state: Mapping[str, Tensor], manifest: Manifest) -> None:
    if wrong := misfit(module.state_dict(), state):
        raise WeightsError(
            f"weights: {name!r} of preset {manifest.preset!r} does not fit this model: {wrong}. "
            "Choose the preset of the weights."
        )
    if (key := first_not_finite(state)) is not None:
        raise WeightsError(
            f"weights: {key!r} of {name!r}, version {manifest.version}, holds NaN or infinity, "
            "expected finite numbers. Choose a version from before the training diverged."
        )


def _record(manifest: Manifest) -> dict[str, Any]:
    """The manifest as JSON; without settings where there are none, for older readers."""
    entries = asdict(manifest)
    return entries if manifest.settings else {k: v for k, v in entries.items() if k != "settings"}


def _number(text: str) -> bool:
    """Is it a version's number, or the name of its folder?"""
    return len(text) <= 20 and text.isascii() and text.isdigit()


def _write(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
