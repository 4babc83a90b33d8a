"""Versions of weights in memory: loaded in a thread, cached, switched at an episode's start."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from wm_datasets.spec import VectorSpec
from wm_models.errors import ModelError
from wm_models.interface.action_scaling import ActionAdapter
from wm_models.interface.world_model import ModelSpec, WorldModel
from wm_models.planners.registry import PLANNERS, continuous_search
from wm_models.weights.manifest import Manifest, WeightsError
from wm_models.weights.store import (
    WeightStore,
    build,
    load_modules,
    read_manifest,
    resolve,
)
from wm_nodes.errors import UserError
from wm_nodes.records import Announcement, Origin, Step
from wm_nodes.robots.cameras.names import contradiction

KNOWN = 64  # announcements kept


@dataclass(frozen=True)
class Weights:
    """One version, ready to use."""

    version: int
    preset: str
    model: WorldModel
    tokens: tuple[int, int]  # (N, D) of its features
    state: int  # S, numbers in its packed state
    actions: ActionAdapter  # between the robot's actions and the model's
    settings: Mapping[str, Any] = field(default_factory=dict)  # that differ from the preset

    @property
    def wants_proprio(self) -> bool:
        """Whether the model takes joint_states besides the images."""
        return "proprio" in self.model.spec.obs_keys

    @property
    def wants_image(self) -> bool:
        """Whether the model takes images of cameras."""
        return self.model.spec.image_size is not None

    def origin(self, module: str) -> Origin:
        """Return the origin of a result: preset, module and version."""
        return Origin(self.preset, module, self.version)


def load_weights(
    folder: str | Path, verbs: tuple[str, ...], device: torch.device, only: str = ""
) -> Weights:
    """Load the modules for `verbs` (wm_models.interface.world_model.VERBS) from a version's folder,
    or from a store's newest version.

    WeightsError: no version, a damaged one, or another preset than `only`.
    """
    folder = resolve(folder)
    manifest = read_manifest(folder)
    if only and manifest.preset != only:
        raise WeightsError(
            f"weights: got model {manifest.preset!r} in {folder}, expected {only!r}. Start the "
            "node with the same model, or with other weights."
        )
    model = build(manifest)
    modules = model.modules_by_name()
    load_modules(folder, {name: modules[name] for name in model.parts_for(*verbs)})
    return ready(model.to(device).eval(), manifest)


def ready(model: WorldModel, manifest: Manifest) -> Weights:
    """Run every part once, so that the first step is as fast as the later ones."""
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
    """Return an observation of zeros {name: [1, ...]}. WeightsError: no node sends a part of it."""
    if foreign := sorted(spec.obs_keys.keys() - {*spec.image_keys, "proprio"}):
        raise WeightsError(
            f"weights: got a model that takes {', '.join(foreign)}, expected one that takes only "
            "image and proprio, which the nodes send."
        )
    obs = {name: torch.zeros(1, *shape, device=device) for name, shape in spec.obs_keys.items()}
    for key in spec.image_keys:
        _, height, width = spec.obs_keys[key]
        obs[key] = torch.zeros(1, height, width, 3, dtype=torch.uint8, device=device)
    return obs


def check_space(weights: Weights, space: VectorSpec, planner: str) -> None:
    """Raise UserError where only one of robot and weights has discrete actions, or where the
    planner cannot choose from them."""
    kinds = {True: "discrete", False: "continuous"}
    trained, own = weights.model.spec.discrete, space.discrete
    if trained != own:
        raise UserError(
            f"weights: got version {weights.version} of {weights.preset} for {kinds[trained]} "
            f"actions, expected {kinds[own]} ones as this robot's. Take weights of its task."
        )
    if own and not PLANNERS[planner].discrete:
        raise UserError(continuous_search(planner))


def check_cameras(weights: Weights, cameras: Sequence[str]) -> None:
    """Raise UserError where the model was trained with several cameras and these are others, or
    where these are several and it was trained with one."""
    if weights.wants_image and (why := contradiction(weights.model.spec.cameras, cameras)):
        raise UserError(f"weights: version {weights.version} of {weights.preset}: {why}")


def device_of(model: WorldModel) -> torch.device:
    return next(model.parameters()).device


class WeightCache:
    """The version in use and the newest one; others are loaded again from disk on demand.

    New versions load in a thread; `poll` takes over those that are ready. Only one thread may call
    a cache.
    """

    def __init__(
        self,
        verbs: tuple[str, ...],
        device: torch.device,
        only: str = "",
        on_refused: Callable[[str, str], object] = lambda reason, text: None,
    ) -> None:
        self.newest: Weights | None = None
        self._verbs, self._device, self._only = verbs, device, only
        self._on_refused = on_refused
        self._cached: dict[int, Weights] = {}
        self._folders: dict[int, str] = {}
        self._announcements: dict[int, Announcement] = {}  # by version
        self._loader = ThreadPoolExecutor(1, thread_name_prefix="weights")
        self._loading: list[tuple[int, Future[Weights]]] = []

    def open(self, folder: str | Path) -> Weights:
        """Load a version now and make it the newest. WeightsError, ModelError."""
        weights = self._load(folder, None)
        self._folders[weights.version] = str(resolve(folder))
        self._keep(weights)
        return weights

    def announce(self, announcement: Announcement) -> None:
        """Start to load a version that the trainer has published."""
        version, path = announcement.version, announcement.path
        if version in self._cached and self._folders.get(version) == path:
            return
        if len(self._loading) >= KNOWN:
            self._on_refused(
                "weights/many",
                f"weights: got more announced versions, expected at most {KNOWN} that wait.",
            )
            return
        self._folders[version] = path
        self._announcements[version] = announcement
        while len(self._folders) > KNOWN:
            oldest = next(iter(self._folders))
            del self._folders[oldest]
            self._announcements.pop(oldest, None)
        future = self._loader.submit(self._load, path, announcement)
        self._loading.append((version, future))

    def poll(self) -> bool:
        """Take over versions that have finished loading; True if `newest` changed."""
        before = self.newest
        while self._loading and self._loading[0][1].done():
            self._take(*self._loading.pop(0))
        return self.newest is not before

    def wait(self) -> None:
        """Wait for all versions that are being loaded, and take them over."""
        while self._loading:
            self._take(*self._loading.pop(0))

    def get(self, origin: Origin) -> Weights | None:
        """Return the version of an origin; None if it is not known here."""
        weights = self._cached.get(origin.version)
        if weights is None and origin.version in self._folders:
            self.wait()
            weights = self._cached.get(origin.version) or self._reload(origin.version)
        return weights if weights is not None and weights.preset == origin.model else None

    def keep_only(self, weights: Weights) -> None:
        """Drop every version except this one and the newest."""
        newest = self.newest or weights
        self._cached = {w.version: w for w in (weights, newest)}

    def close(self) -> None:
        self._loader.shutdown(wait=False, cancel_futures=True)

    def _load(self, folder: str | Path, announcement: Announcement | None) -> Weights:
        """Load a version, and check it against its announcement. WeightsError, ModelError,
        OSError."""
        if announcement is not None:
            manifest = read_manifest(folder)
            for what, got, expected in (
                ("sha256", manifest.digest, announcement.sha256),
                ("version", manifest.version, announcement.version),
                ("preset", manifest.preset, announcement.preset),
            ):
                if got != expected:
                    raise WeightsError(
                        f"weights: {folder}: got {what} {_short(got)}, expected "
                        f"{_short(expected)} as announced."
                    )
        try:
            return load_weights(folder, self._verbs, self._device, self._only)
        except (WeightsError, ModelError, OSError):
            raise
        except Exception as error:  # any error of torch in a foreign file must not end the node
            raise WeightsError(f"weights: {folder} cannot be loaded ({error!r:.200})") from error

    def _take(self, version: int, future: Future[Weights]) -> None:
        try:
            weights = future.result()
        except (WeightsError, ModelError, OSError) as error:
            self._folders.pop(version, None)
            self._on_refused("weights/refused", str(error))
            return
        self._keep(weights)

    def _keep(self, weights: Weights) -> None:
        self._cached[weights.version] = weights
        self.newest = weights

    def _reload(self, version: int) -> Weights | None:
        """Load a version again that was dropped: the encoder has switched to it."""
        try:
            weights = self._load(self._folders[version], None)
            if weights.version != version:
                raise WeightsError(
                    f"weights: {self._folders[version]}: got version {weights.version}, expected "
                    f"{version}."
                )
        except (WeightsError, ModelError, OSError) as error:
            self._on_refused("weights/refused", str(error))
            return None
        self._cached[version] = weights
        return weights


def _short(value: object) -> str:
    return str(value)[:12]


class VersionSwitch:
    """When the newest version comes into use: at the start of an episode, but not within a block of
    evaluation episodes; at once if there was no version before."""

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
    """Return the folder to start with: `weights`, else the run's newest, else None."""
    if weights:
        return Path(weights)
    if run and WeightStore(Path(run) / "weights").latest() is not None:
        return Path(run) / "weights"
    return None
