"""The smallest model with every mechanism, a robot with images of its size, and a log of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.wm_nodes.point_robot import PointRobot
from wm_models.behaviors.actor_critic import BehaviorConfig
from wm_models.families.mwm.autoencoder import AutoencoderConfig
from wm_models.families.mwm.learner import LearnerConfig
from wm_models.families.mwm.model import MWMConfig, TokenViTConfig
from wm_models.families.mwm.presets import MWMPreset
from wm_models.interface.learner import BatchSpec
from wm_models.nets.heads import HeadConfig
from wm_models.nets.optimizer import OptimizerConfig
from wm_models.nets.rssm import RSSMConfig
from wm_nodes.episodes.collect import HeldRandom, NoisyExpert, collect

SIZE = 32

TINY = MWMPreset(
    "tiny",
    "as small as every mechanism allows",
    model=MWMConfig(
        autoencoder=AutoencoderConfig(
            image_size=SIZE,
            channels=(4, 4, 8),
            width=16,
            encoder_layers=1,
            decoder_width=16,
            decoder_layers=1,
            heads=2,
        ),
        vit=TokenViTConfig(width=16, encoder_layers=1, decoder_layers=1, heads=2),
        rssm=RSSMConfig(deter=24, hidden=20, stoch=4, classes=5),
        heads=HeadConfig(units=16, layers=2),
    ),
    learner=LearnerConfig(
        autoencoder_batch=BatchSpec(8, 3),
        agent_batch=BatchSpec(2, 5),
        autoencoder=OptimizerConfig(lr=3e-3),
        world_model=OptimizerConfig(lr=1e-3),
        behavior=BehaviorConfig(horizon=4, imitation=0.1),
        autoencoder_init=3,
        world_model_init=2,
        prefill=20,
        train_every=5,
    ),
)


class LargeImagePoint(PointRobot):
    """The point robot with images of 32 x 32."""

    def __init__(self, seed: int = 0, time_limit: int = 8, size: int = SIZE) -> None:
        super().__init__(seed, time_limit, size)


class Homing:
    """Pushes to the origin; from afar harder than the robot allows."""

    def begin(self) -> None:
        pass

    def act(self, observation):
        far = abs(observation.proprio) > 0.7
        return np.float32(-observation.proprio * (1 + 5 * far))


def record(log: Path, episodes: int = 4, *, seed: int = 0, expert: bool = False, size: int = SIZE):
    """Add episodes of a random or an expert point to a log; return the log."""
    with LargeImagePoint(size=size) as robot:
        if expert:
            policy = NoisyExpert(Homing(), robot.spec, 0.5, seed)
        else:
            policy = HeldRandom(robot.spec, 2.0, seed)
        collect(robot, policy, log, episodes, seed)
    return log
