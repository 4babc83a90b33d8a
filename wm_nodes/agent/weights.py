"""Versions of weights in memory: loaded aside, held together, switched at an episode's start."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from wm_models.errors import ModelError
from wm_models.interface.action_scaling import ActionAdapter
from wm_models.interface.world_model import ModelSpec, WorldModel
from wm_models.weights.store import (
    Manifest,
    WeightsError,
    WeightStore,
    build,
    load_modules,
    read_manifest,
    resolve,
)
from wm_nodes.records import Announcement, Origin, Step

KNOWN = 64  # announcements remembered
OBSERVED = frozenset({"image", "proprio"})  # what the nodes carry of an observation


@dataclass(frozen=True)
class Weights:
    """One version, ready to use."""

    version: int
    preset: str
    model: WorldModel
    tokens: tuple[int, int]  # (N, D) of its features
    state: int  # S, numbers in its packed state
    actions: ActionAdapter  # between the robot's actions and the model's
    settings: Mapping[str, Any] = field(default_factory=dict)  # in which it differs from the preset

    @property
    def wants_proprio(self) -> bool:
        """Whether the model sees joint_states besides the picture."""
        return "proprio" in self.model.spec.obs_keys

    @property
    def wants_image(self) -> bool:
        """Whether the model sees a camera's image."""
        return self.model.spec.image_size is not None

    def origin(self, module: str) -> Origin:
        """Who to name as the maker of a result."""
        return Origin(self.preset, module, self.version)


def load_weights(
    folder: str | Path, verbs: tuple[str, ...], device: torch.device, only: str = ""
) -> Weights:
    """Load what a node needs for `verbs` (wm_models.interface.world_model.VERBS) from one version's
    folder, or from a store's newest.

    WeightsError says what is wrong: nothing there, damaged, or another preset than `only`.
    """
    folder = resolve(folder)
    manifest = read_manifest(folder)
    if only and manifest.preset != only:
        raise WeightsError(
            f"weights: {folder} is of model {manifest.preset!r}, this node was started with "
            f"{only!r}. Give the same model, or other weights."
        )
    model = build(manifest)
    modules = model.modules_by_name()
    load_modules(folder, {name: modules[name] for name in model.parts_for(*verbs)})
    return ready(model.to(device).eval(), manifest)


def ready(model: WorldModel, manifest: Manifest) -> Weights:
    """Run every part once, so that the first decision is as fast as the later ones."""
    with torch.inference_mode():
        device = device_of(model)
        obs = blank_observation(model.spec, device)
        action = torch.zeros(1, model.spec.action_dim, device=device)
        first = torch.ones(1, dtype=torch.bool, device=device)
        for _ in range(2):
            tokens = model.encode(obs)
            state = model.filter(model.initial(1, device), action, tokens, first)
            if model.spec.has_actor:
                model.act(state, mode=True)
        flat = model.pack(state)
    shape = (tokens.shape[1], tokens.shape[2])
    actions = ActionAdapter.of(model)
    return Weights(
        manifest.version, manifest.preset, model, shape, flat.shape[1], actions, manifest.settings
    )


def blank_observation(spec: ModelSpec, device: torch.device) -> dict[str, Tensor]:
    """Return zeros in place of what a model sees, batch 1. WeightsError: no node carries it."""
    if foreign := sorted(spec.obs_keys.keys() - OBSERVED):
        raise WeightsError(
            f"weights: got a model that sees {', '.join(foreign)}, expected one that sees "
            f"{' and '.join(sorted(OBSERVED))}, which the nodes carry."
        )
    obs = {name: torch.zeros(1, *shape, device=device) for name, shape in spec.obs_keys.items()}
    if spec.image_size is not None:
        obs["image"] = torch.zeros(1, *spec.image_size, 3, dtype=torch.uint8, device=device)
    return obs


def device_of(model: WorldModel) -> torch.device:
    return next(model.parameters()).device


class Shelf:
    """What a node holds: the version in use and the newest; others come back from disk on demand.

    New versions load in a thread; `poll` takes over what is ready. One thread uses a shelf.
    """

    def __init__(
        self,
        verbs: tuple[str, ...],
        device: torch.device,
        only: str = "",
        refuse: Callable[[str, str], object] = lambda reason, text: None,
    ) -> None:
        self.newest: Weights | None = None
        self._verbs, self._device, self._only, self._refuse = verbs, device, only, refuse
        self._held: dict[int, Weights] = {}
        self._folders: dict[int, str] = {}
        self._news: dict[int, Announcement] = {}  # of those folders that were announced
        self._loader = ThreadPoolExecutor(1, thread_name_prefix="weights")
        self._loading: list[tuple[int, Future[Weights]]] = []

    def open(self, folder: str | Path) -> Weights:
        """Load now, and use it as the newest. WeightsError, ModelError."""
        weights = self._load(folder, None)
        self._folders[weights.version] = str(resolve(folder))
        self._keep(weights)
        return weights

    def announce(self, news: Announcement) -> None:
        """Begin to load a version that the trainer has published."""
        if news.version in self._held and self._folders.get(news.version) == news.path:
            return
        if len(self._loading) >= KNOWN:
            self._refuse("weights/many", f"weights: {KNOWN} announced versions wait already")
            return
        self._folders[news.version] = news.path
        self._news[news.version] = news
        while len(self._folders) > KNOWN:
            oldest = next(iter(self._folders))
            del self._folders[oldest]
            self._news.pop(oldest, None)
        future = self._loader.submit(self._load, news.path, news)
        self._loading.append((news.version, future))

    def poll(self) -> bool:
        """Take over versions that have finished loading; True if `newest` changed."""
        before = self.newest
        while self._loading and self._loading[0][1].done():
            self._take(*self._loading.pop(0))
        return self.newest is not before

    def wait(self) -> None:
        """Take over everything that is being loaded."""
        while self._loading:
            self._take(*self._loading.pop(0))

    def get(self, origin: Origin) -> Weights | None:
        """Return the version that made something; None if it is not known here."""
        weights = self._held.get(origin.version)
        if weights is None and origin.version in self._folders:
            self.wait()
            weights = self._held.get(origin.version) or self._again(origin.version)
        return weights if weights is not None and weights.preset == origin.model else None

    def in_use(self, weights: Weights) -> None:
        """Drop every version but this one and the newest."""
        newest = self.newest or weights
        self._held = {w.version: w for w in (weights, newest)}

    def close(self) -> None:
        self._loader.shutdown(wait=False, cancel_futures=True)

    def _load(self, folder: str | Path, news: Announcement | None) -> Weights:
        """Load a version, if it is what was announced; WeightsError, ModelError, OSError."""
        if news is not None:
            found = read_manifest(folder)
            for what, given, wanted in (
                ("sha256", found.digest, news.sha256),
                ("version", found.version, news.version),
                ("preset", found.preset, news.preset),
            ):
                if given != wanted:
                    raise WeightsError(
                        f"weights: {folder} has {what} {_short(given)}, announced was "
                        f"{_short(wanted)}"
                    )
        try:
            return load_weights(folder, self._verbs, self._device, self._only)
        except (WeightsError, ModelError, OSError):
            raise
        except Exception as error:  # whatever torch makes of a foreign file must not end the node
            raise WeightsError(f"weights: {folder} cannot be loaded ({error!r:.200})") from error

    def _take(self, version: int, future: Future[Weights]) -> None:
        try:
            weights = future.result()
        except (WeightsError, ModelError, OSError) as error:
            self._folders.pop(version, None)
            self._refuse("weights/refused", str(error))
            return
        self._keep(weights)

    def _keep(self, weights: Weights) -> None:
        self._held[weights.version] = weights
        self.newest = weights

    def _again(self, version: int) -> Weights | None:
        """A version that was let go is asked for: the encoder has switched to it after all."""
        try:
            weights = self._load(self._folders[version], None)
            if weights.version != version:
                raise WeightsError(
                    f"weights: {self._folders[version]} is version {weights.version}"
                )
        except (WeightsError, ModelError, OSError) as error:
            self._refuse("weights/refused", str(error))
            return None
        self._held[version] = weights
        return weights


def _short(value: object) -> str:
    return str(value)[:12]


class Swap:
    """When to go over to the newest version: at an episode's start, but not inside a block of
    evaluation episodes; at once where there was none."""

    def __init__(self, mode: str = "episode") -> None:
        self.current: Weights | None = None
        self._mode = mode
        self._evaluating = False

    def at(self, step: Step, newest: Weights | None) -> Weights | None:
        """Return the version for this observation."""
        inside_block = self._evaluating and not step.explore
        free = self._mode == "now" or (step.is_first and not inside_block)
        if newest is not None and (self.current is None or free):
            self.current = newest
        if step.is_first:
            self._evaluating = not step.explore
        return self.current


def find_weights(weights: str, run: str) -> Path | None:
    """Return the folder to begin with: the one given, else the run's newest, else None."""
    if weights:
        return Path(weights)
    if run and WeightStore(Path(run) / "weights").latest() is not None:
        return Path(run) / "weights"
    return None
