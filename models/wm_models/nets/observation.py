"""Observations of the Dreamer family, images and proprioception, to numbers and back.

Images of several cameras have one size and are stacked along their channels for one CNN; the
decoder's last layer has the channels of all, which are split again. So do all releases of DreamerV2
(`Encoder._cnn` in common/nets.py), DayDreamer, DreamerV3 2023 (`MultiEncoder`, `MultiDecoder` in
nets.py) and 2025 (`Encoder`, `Decoder` in dreamerv3/rssm.py). The loss is the sum over cameras. The
order is that of the embodiment, where the release of 2025 sorts the names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
        keys: dict[str, tuple[int, ...]] = {}
        if self.images:
            keys = {key: (3, size, size) for key in embodiment.image_keys}
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
    """Observations {"image": (B, ...), "proprio": (B, P)} -> features (B, 1, width).

    Of several cameras each has its image, "image/NAME".
    """

    def __init__(self, config: ObservationConfig, embodiment: Embodiment) -> None:
        super().__init__()
        self.image_keys = embodiment.image_keys
        self.cnn = config.cnn.encoder(3 * len(self.image_keys)) if config.images else None
        self.mlp: nn.Sequential | None = None
        if config.proprio:
            self.scale = ProprioScale(embodiment)
            net = config.mlp.net(embodiment.proprio_dim, 1)
            self.mlp = net[:-1]
            config.mlp.initialize_(self.mlp)

    def forward(self, obs: Mapping[str, Tensor]) -> Tensor:
        parts = []
        if self.cnn is not None:
            parts.append(self.cnn(stacked(obs, self.image_keys)))
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
        self.image_keys = embodiment.image_keys
        channels = 3 * len(self.image_keys)
        self.cnn = config.cnn.decoder(feat, deter, channels) if config.images else None
        self.mlp: nn.Sequential | None = None
        if config.proprio:
            self.scale = ProprioScale(embodiment)
            self.mlp = config.mlp.net(feat, embodiment.proprio_dim)
            config.mlp.initialize_(self.mlp)

    def losses(self, feat: Tensor, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Squared errors of states (B, T, F): summed over pixels (of all cameras) or numbers,
        averaged over B and T.

        Images in 0..1, proprioception in symlog space.
        """
        losses = {}
        if self.cnn is not None:
            image = stacked(batch, self.image_keys)
            size, channels = self.cnn.config.image_size, 3 * len(self.image_keys)
            target = centred(image.flatten(0, 1), size, channels)
            error = self.cnn(feat).float() - target.unflatten(0, image.shape[:2])
            losses["wm/image_loss"] = error.square().sum((-3, -2, -1)).mean()
        if self.mlp is not None:
            error = self.mlp(feat).float() - self.scale(batch["proprio"])
            losses["wm/proprio_loss"] = error.square().sum(-1).mean()
        return losses

    def images(self, feat: Tensor) -> dict[str, Tensor]:
        """The image (..., 3, H, W) of each camera in 0..1, by its name in an observation.
        ModelError: the model sees none."""
        if self.cnn is None:
            raise ModelError("decode: this model sees no images (inputs is 'proprio').")
        images: Tensor = (self.cnn(feat) + CENTRE).clamp(0.0, 1.0)
        return dict(zip(self.image_keys, images.split(3, -3), strict=True))


def stacked(obs: Mapping[str, Tensor], keys: Sequence[str]) -> Tensor:
    """The images of these names along their channels: uint8 (..., H, W, 3 n) or float
    (..., 3 n, H, W). ModelError: one is missing, or they differ in size or type."""
    if missing := [key for key in keys if key not in obs]:
        raise ModelError(
            f"{', '.join(missing)}: got only {', '.join(sorted(obs))}, expected an image of each "
            "camera."
        )
    images = [obs[key] for key in keys]
    if len({(image.shape, image.dtype) for image in images}) > 1:
        given = ", ".join(
            f"{key} {tuple(image.shape)} {image.dtype}"
            for key, image in zip(keys, images, strict=True)
        )
        raise ModelError(f"images: got {given}, expected one size and type.")
    if len(images) == 1:
        return images[0]
    return torch.cat(images, -1 if images[0].dtype == torch.uint8 else -3)
