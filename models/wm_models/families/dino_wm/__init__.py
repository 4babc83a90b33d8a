"""DINO-WM: a frame-causal predictor of frozen patch features (Zhou et al., 2024)."""

from wm_models.encoders.conv import ConvConfig
from wm_models.encoders.timm import TimmConfig
from wm_models.families.dino_wm.history import DinoState
from wm_models.families.dino_wm.learner import DinoLearner, DinoLearnerConfig
from wm_models.families.dino_wm.model import DinoConfig, DinoWorldModel
from wm_models.families.dino_wm.predictor import PredictorConfig

__all__ = [
    "ConvConfig",
    "DinoConfig",
    "DinoLearner",
    "DinoLearnerConfig",
    "DinoState",
    "DinoWorldModel",
    "PredictorConfig",
    "TimmConfig",
]
