"""Settings of DreamerV3 (2023) that its preset and MuDreamer's share."""

from __future__ import annotations

from typing import Any

from wm_models.behaviors.actor_critic import BehaviorConfig
from wm_models.nets.cnn import CNNConfig
from wm_models.nets.heads import ActorConfig, HeadConfig
from wm_models.nets.observation import ObservationConfig
from wm_models.nets.optimizer import OptimizerConfig
from wm_models.nets.rssm import RSSMConfig

UNIMIX = 0.01  # share of the uniform distribution in every categorical


def v3_heads(units: int, layers: int) -> HeadConfig:
    """Hidden layers with LayerNorm and SiLU."""
    return HeadConfig(units, layers, "silu", "layer", "truncated_normal")


def v3_model(
    *,
    depth: int = 32,
    width: int = 512,
    latents: int = 32,
    units: int = 512,
    proprio: HeadConfig | None = None,
) -> dict[str, Any]:
    """Fields of a DreamerConfig; the defaults are size S.

    depth: channels of the first convolution. width: of the recurrent state and the hidden layers of
    the RSSM. latents: as many latents, of as many classes. units: of the heads. proprio: hidden
    layers on proprioception, 5 of 1024 by default.
    """
    return {
        "observation": ObservationConfig(
            cnn=CNNConfig(64, depth, "same", "silu", "layer", "truncated_normal"),
            mlp=proprio or v3_heads(1024, 5),
        ),
        "rssm": RSSMConfig(
            deter=width,
            hidden=width,
            stoch=latents,
            classes=latents,
            action_pad=0,
            act="silu",
            img_in_act="silu",
            norm="layer",
            unimix=UNIMIX,
            initial="learned",
            init="truncated_normal",
        ),
        "heads": v3_heads(units, 2),
        "actor": ActorConfig("clipped_normal", std_shift=2.0, unimix=UNIMIX, output_scale=1.0),
        "reward": "twohot",
        "critic": "twohot",
        "output_scale": 0.0,
        "discount": True,
        "gamma": 0.997,
        "continues_as_gamma": False,
        "image_scale": 1.0,
        "critic_counts_arrival": False,
    }


def v3_discrete(model: dict[str, Any]) -> dict[str, Any]:
    """The same for discrete actions; :func:`v3_behavior` is then to have ``reinforce``."""
    return {**model, "actor": ActorConfig("onehot", unimix=UNIMIX, output_scale=1.0)}


def v3_behavior(**changes: Any) -> BehaviorConfig:
    """Imagination, returns and losses."""
    settings: dict[str, Any] = {
        "entropy": 3e-4,
        "detach_action": True,
        "reward_norm": 1.0,
        "return_norm": True,
        "returns": "next",
        "bootstrap": "online",
        "target": "ema",
        "slow_regularizer": 1.0,
    }
    return BehaviorConfig(**{**settings, **changes})


def v3_optimizers(model: float = 1e-4, behavior: float = 3e-5) -> dict[str, Any]:
    """Adam of world model, actor and critic, with their learning rates."""
    behaviors = OptimizerConfig(behavior, eps=1e-5, clip=100.0, decay=0.0)
    return {
        "world_model": OptimizerConfig(model, eps=1e-8, clip=1000.0, decay=0.0),
        "actor": behaviors,
        "critic": behaviors,
    }
