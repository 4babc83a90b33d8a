"""Observations of the Dreamer family, images and proprioception, to numbers and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from wm_models.errors import ModelError
from wm_models.interface.checked import Checked
from wm_models.interface.embodiment import Embodiment
from wm_models.nets.cnn import CENTRE, CNNConfig, centred
from wm_models.nets.distributions import symlog
from wm_models.nets.heads import HeadConfig
from wm_models.nets.pooled_cnn import PooledCNNConfig

INPUTS = ("image", "proprio", "both")


@dataclass(frozen=True)
class ObservationConfig:
    """What a model sees and, with a decoder, reconstructs. The defaults are DreamerV2's."""

    inputs: str = "image"  # "image", "proprio", or "both" side by side (DayDreamer)
    cnn: CNNConfig | PooledCNNConfig = field(default_factory=CNNConfig)
    # hidden layers on proprioception; their last one's outputs are the embedding
    mlp: HeadConfig = field(default_factory=lambda: HeadConfig(units=400, layers=4))

    def __post_init__(self) -> None:
        Checked(self).choice("inputs", INPUTS)

    @property
    def images(self) -> bool:
        return self.inputs != "proprio"

    @property
    def proprio(self) -> bool:
        return self.inputs != "image"

    @property
    def width(self) -> int:
        """Numbers that the encoder makes of an observation."""
        return self.images * self.cnn.width + self.proprio * self.mlp.units

    def obs_keys(self, embodiment: Embodiment) -> dict[str, tuple[int, ...]]:
        """Shapes of the observation's parts, as in a model's spec. ModelError: the robot has no
        proprioception."""
        size = self.cnn.image_size
        keys: dict[str, tuple[int, ...]] = {"image": (3, size, size)} if self.images else {}
        if self.proprio:
            if not embodiment.proprio_dim:
                raise ModelError(
                    f"inputs: got {self.inputs!r}, expected 'image' for a robot without "
                    "proprioception in its logs."
                )
            keys["proprio"] = (embodiment.proprio_dim,)
        return keys


class ProprioScale(nn.Module):
    """Proprioception (..., P), standardised by its statistics, in symlog space."""

    mean: Tensor
    std: Tensor

    def __init__(self, embodiment: Embodiment) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(embodiment.proprio_mean), persistent=False)
        self.register_buffer("std", torch.tensor(embodiment.proprio_std), persistent=False)

    def forward(self, proprio: Tensor) -> Tensor:
        return symlog((proprio.float() - self.mean) / self.std)


class ObservationEncoder(nn.Module):
    """Observations {"image": (B, ...), "proprio": (B, P)} -> features (B, 1, width)."""

    def __init__(self, config: ObservationConfig, embodiment: Embodiment) -> None:
        super().__init__()
        self.cnn = config.cnn.encoder() if config.images else None
        self.mlp: nn.Sequential | None = None
        if config.proprio:
            self.scale = ProprioScale(embodiment)
            net = config.mlp.net(embodiment.proprio_dim, 1)
            self.mlp = net[:-1]
            config.mlp.initialize_(self.mlp)

    def forward(self, obs: Mapping[str, Tensor]) -> Tensor:
        parts = []
        if self.cnn is not None:
            parts.append(self.cnn(obs["image"]))
        if self.mlp is not None:
            if "proprio" not in obs:
                raise ModelError(
                    f"proprio: got only {', '.join(sorted(obs))}, expected proprioception too."
                )
            parts.append(self.mlp(self.scale(obs["proprio"])))
        return torch.cat(parts, -1)[:, None]


class ObservationDecoder(nn.Module):
    """State features (..., F), of which the last ``deter`` are the recurrent state's, -> the
    observation."""

    def __init__(
        self, config: ObservationConfig, embodiment: Embodiment, feat: int, deter: int
    ) -> None:
        super().__init__()
        self.cnn = config.cnn.decoder(feat, deter) if config.images else None
        self.mlp: nn.Sequential | None = None
        if config.proprio:
            self.scale = ProprioScale(embodiment)
            self.mlp = config.mlp.net(feat, embodiment.proprio_dim)
            config.mlp.initialize_(self.mlp)

    def losses(self, feat: Tensor, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Squared errors of states (B, T, F): summed over pixels or numbers, averaged over B and T.

        Images in 0..1, proprioception in symlog space.
        """
        losses = {}
        if self.cnn is not None:
            image = batch["image"]
            target = centred(image.flatten(0, 1), self.cnn.config.image_size)
            error = self.cnn(feat).float() - target.unflatten(0, image.shape[:2])
            losses["wm/image_loss"] = error.square().sum((-3, -2, -1)).mean()
        if self.mlp is not None:
            error = self.mlp(feat).float() - self.scale(batch["proprio"])
            losses["wm/proprio_loss"] = error.square().sum(-1).mean()
        return losses

    def image(self, feat: Tensor) -> Tensor:
        """The image (..., 3, H, W) in 0..1. ModelError: the model sees none."""
        if self.cnn is None:
            raise ModelError("decode: this model sees no images (inputs is 'proprio').")
        image: Tensor = self.cnn(feat) + CENTRE
        return image.clamp(0.0, 1.0)
