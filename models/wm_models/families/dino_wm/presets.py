"""Named settings of DINO-WM: as released, ours, and a small one; each departure with its reason."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from wm_models.encoders.conv import ConvConfig
from wm_models.encoders.timm import TimmConfig
from wm_models.families.dino_wm.decoder import DecoderConfig
from wm_models.families.dino_wm.learner import DinoLearner, DinoLearnerConfig
from wm_models.families.dino_wm.model import DinoConfig, DinoWorldModel
from wm_models.families.dino_wm.predictor import PredictorConfig
from wm_models.families.dino_wm.probe import ProbeConfig
from wm_models.families.dino_wm.settings import configured
from wm_models.families.dino_wm.tokens import EmbeddingConfig, TokenConfig
from wm_models.interface.embodiment import Embodiment
from wm_models.interface.preset import Pace, Planning, Preset, Sampling, WeightsReader
from wm_models.interface.world_model import WorldModel
from wm_models.nets.images import IMAGENET_MEAN, IMAGENET_STD
from wm_models.nets.optimizer import OptimizerConfig
from wm_models.registry import SUMMARIES

HORIZON = 5  # model steps that a search looks ahead

# Planners as released (conf/plan*.yaml, conf/planner, planning/{cem,gd,mpc}.py), for
# `dino_wm_repo`: the width has no floor, actions are not clipped (the robot's box does that), the
# last mean or the last step of the gradient is the plan, only its last step is compared with the
# goal, and all of it is carried out before the next search. The release has no MPPI.
RELEASED_CEM: Mapping[str, Any] = {"sigma_min": 0.0, "clip": False, "output": "last"}
RELEASED_GD: Mapping[str, Any] = {
    "horizon": HORIZON,
    "steps": 1000,
    "lr": 1.0,
    "optimiser": "sgd",
    "noise": 0.003,
    "restarts": 1,
    "init": 1.0,
    "from_warm": False,
    "clip": False,
    "output": "last",
}


@dataclass(frozen=True)
class DinoPreset(Preset):
    """DINO-WM."""

    model: DinoConfig = field(default_factory=DinoConfig)
    learner: DinoLearnerConfig = field(default_factory=DinoLearnerConfig)
    samples: int = 300  # candidates of a search; a tenth of them elites
    iterations: int = 10
    released: bool = False  # plan with the release's settings

    @property
    def planning(self) -> Planning:
        """Five model steps; actions are z-scored, so that a search begins with width 1."""
        search: dict[str, Any] = {
            "horizon": HORIZON,
            "samples": self.samples,
            "iterations": self.iterations,
            "elites": max(2, self.samples // 10),
            "sigma0": 1.0,
        }
        if not self.released:
            return Planning({"cem": search, "mppi": search, "gd": {"horizon": HORIZON}})
        return Planning(
            {"cem": {**search, **RELEASED_CEM}, "mppi": search, "gd": RELEASED_GD},
            objective="last",
            execute=HORIZON * self.model.frameskip,
        )

    @property
    def pace(self) -> Pace:
        c = self.learner
        return Pace(c.prefill, c.train_every, c.encoder_updates + c.measure_updates)

    @property
    def sampling(self) -> Sampling:
        return Sampling(join=False)  # slices of one trajectory, all alike, as released

    def varied(self, settings: Mapping[str, Any]) -> DinoPreset:
        """This preset with settings changed: by dotted names, or those of `settings.py`."""
        own = {name: value for name, value in settings.items() if "." not in name}
        changed = replace(
            self, model=configured(self.model, own), settings={**self.settings, **own}
        )
        dotted = {name: value for name, value in settings.items() if "." in name}
        return super(DinoPreset, changed).varied(dotted)  # type: ignore[return-value]

    def build(self, embodiment: Embodiment | int, seed: int = 0) -> DinoWorldModel:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return DinoWorldModel(self.model, self.fitted(embodiment))

    def build_learner(
        self, model: WorldModel, seed: int = 0, device: str | torch.device = "cpu"
    ) -> DinoLearner:
        assert isinstance(model, DinoWorldModel)
        return DinoLearner(model, self.learner, seed=seed, device=device)

    def pretrain(self, model: WorldModel, read: WeightsReader) -> dict[str, Any]:
        """Load the weights of a frozen encoder from this computer; ModelError where there are
        none. The file's name and digest go into the manifest, the weights into the version."""
        assert isinstance(model, DinoWorldModel)
        return {"encoder": model.encoder.picture.pretrain()}


DINO_WM_REPO = DinoPreset("dino_wm_repo", SUMMARIES["dino_wm_repo"], released=True)

# Where `dino_wm` departs from the release, and why:
# - Learning rate 1e-4 after a warm-up and gradients clipped at 1: paper and release disagree by ten
#   (5e-5, 5e-4); pre-norm transformers at the higher rate without a warm-up are known to spike.
# - The proprioception's embedding is fixed: as a trained target with stop-gradient it can shrink
#   to nothing, and distances to the goal with it.
# - Images go into DINOv2 with the mean and deviation that it was trained with.
# - A plan begins from all frames that the predictor can see, with the actions really executed:
#   velocities are not visible in one frame.
# - The predictor predicts the change of a frame: most of an image does not change.
# - The decoder, which is only there for people, learns from one batch in ten: it is 78 % of the
#   cost of training as released.
_OURS = TokenConfig(proprio=EmbeddingConfig(fixed=True))
DINO_WM = DinoPreset(
    "dino_wm",
    SUMMARIES["dino_wm"],
    model=DinoConfig(
        encoder=TimmConfig(mean=IMAGENET_MEAN, std=IMAGENET_STD),
        tokens=_OURS,
        probe=ProbeConfig(channels=(16, 32, 32, 32, 32)),
        context=3,
        residual=True,
    ),
    learner=DinoLearnerConfig(
        predictor=OptimizerConfig(
            lr=1e-4, eps=1e-8, clip=1.0, decay=1e-6, decay_all=True, warmup=1000
        ),
        decoder_every=10,
    ),
)

# `dino_wm_cpu` is smaller, and besides:
# - The encoder is random convolutions, frozen, whose tokens are z-scored. Trained to reconstruct
#   its images, a small encoder omitted the moving dot of Wall for 1000 updates: the dot is a
#   thousandth of the image.
# - No dropout, as so small a predictor does not overfit, and larger learning rates, which it bears.
DINO_WM_CPU = DinoPreset(
    "dino_wm_cpu",
    SUMMARIES["dino_wm_cpu"],
    model=DinoConfig(
        encoder=ConvConfig(channels=(8, 16, 32, 64)),
        tokens=_OURS,
        predictor=PredictorConfig(depth=2, heads=4, head_width=32, hidden=256, dropout=0.0),
        decoder=DecoderConfig(channels=32, blocks=0, narrow=8),
        probe=ProbeConfig(),
        context=1,
        standardise=True,
        residual=True,
    ),
    learner=DinoLearnerConfig(
        batch=32,
        predictor=OptimizerConfig(
            lr=1e-3, eps=1e-8, clip=1.0, decay=1e-6, decay_all=True, warmup=200, anneal=3000
        ),
        decoder=OptimizerConfig(lr=1e-3, eps=1e-8, clip=1.0, decay=0.0),
        probe=OptimizerConfig(lr=1e-3, eps=1e-8, clip=1.0, decay=0.0, anneal=6000),
        encoder_batch=32,
        measure_updates=50,
        decoder_every=10,
        feature_bytes=1 << 30,
        prefill=2000,
        train_every=2,
    ),
    samples=64,
    iterations=5,
)

PRESETS = (DINO_WM, DINO_WM_REPO, DINO_WM_CPU)
