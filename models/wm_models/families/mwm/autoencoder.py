"""The masked autoencoder of Masked World Models: conv features in, pixels and reward out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from wm_models.behaviors.imitation import mean_over, squared_loss
from wm_models.interface.checked import Checked
from wm_models.nets.blocks import (
    ConvStem,
    PatchStem,
    Transformer,
    glorot_,
    patchify,
    sincos_2d,
    unpatchify,
)
from wm_models.nets.distributions import symlog
from wm_models.nets.images import IMAGENET_MEAN, IMAGENET_STD

PATCH = 8  # pixels per token side: three stride-2 convolutions, or the patch itself


@dataclass(frozen=True)
class AutoencoderConfig:
    """Shape of the masked autoencoder. The defaults are the paper's."""

    image_size: int = 64  # pixels
    stem: str = (
        "conv"  # "conv" masks convolutional features, "patch" masks pixel patches (ablation)
    )
    channels: tuple[int, int, int] = (32, 64, 128)  # of the stem's convolutions
    width: int = 256  # of the encoder's tokens
    encoder_layers: int = 4  # blocks of the encoder
    decoder_width: int = 256  # of the decoder's tokens
    decoder_layers: int = 3  # blocks of the decoder
    heads: int = 4  # of attention
    mask_ratio: float = 0.75  # share of tokens that the encoder does not see
    reward_prediction: bool = True  # predict the reward too
    # "token": from the decoder's reward token, as in the paper; "last_patch": from the pixels
    # predicted for the last (bottom right) patch, as the release computes it
    reward_from: str = "token"
    reward_scale: float = 1.0  # weight of its squared error, which is small where rewards are
    # weight of the squared error of demonstrated actions, predicted beside the reward and for the
    # same reason: marks of a few pixels that decide what to do are worth no pixel loss; 0: none
    demonstrations: float = 0.0

    @property
    def grid(self) -> int:
        """Tokens per image side."""
        return self.image_size // PATCH

    def __post_init__(self) -> None:
        check = Checked(self)
        check.whole("image_size", high=4096)
        check.whole("width", "decoder_width", "heads", high=16384)
        check.whole("encoder_layers", "decoder_layers", low=0, high=64)
        check.flag("reward_prediction")
        check.number("reward_scale", "demonstrations", low=0.0)
        for name in ("width", "decoder_width"):
            if getattr(self, name) % self.heads or getattr(self, name) % 4:
                check.refuse(name, f"a multiple of 4 and of heads, {self.heads}")
        if len(self.channels) != 3 or not all(0 < c <= 16384 for c in self.channels):
            check.refuse("channels", "three numbers from 1 to 16384")
        if self.image_size % PATCH:
            raise ValueError(
                f"autoencoder.image_size: got {self.image_size}, expected a multiple of {PATCH}."
            )
        if not 0.0 <= self.mask_ratio < 1.0:
            raise ValueError(
                f"autoencoder.mask_ratio: got {self.mask_ratio}, expected 0 <= ratio < 1."
            )
        if self.stem not in ("conv", "patch"):
            raise ValueError(f"autoencoder.stem: got {self.stem!r}, expected 'conv' or 'patch'.")
        if self.reward_from not in ("token", "last_patch"):
            raise ValueError(
                f"autoencoder.reward_from: got {self.reward_from!r}, expected 'token' or "
                "'last_patch'."
            )


class MaskedAutoencoder(nn.Module):
    """Single frames to [CLS, grid tokens]; trained on masked patches and on the reward."""

    position: Tensor
    decoder_position: Tensor
    mean: Tensor
    std: Tensor
    row_mean: Tensor
    row_std: Tensor

    def __init__(self, config: AutoencoderConfig, action_dim: int = 0) -> None:
        super().__init__()
        self.config = config
        width, dec_width = config.width, config.decoder_width
        if config.stem == "conv":
            self.stem: nn.Module = ConvStem(config.channels, width)
        else:
            self.stem = PatchStem(PATCH, width)
        self.cls = nn.Parameter(torch.zeros(1, 1, width))
        self.encoder = Transformer(width, config.encoder_layers, config.heads)
        self.embed = nn.Linear(width, dec_width)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, dec_width))
        self.decoder = Transformer(dec_width, config.decoder_layers, config.heads)
        pixels = PATCH * PATCH * 3
        self.to_pixels = nn.Linear(dec_width, pixels)
        self.to_reward = nn.Linear(dec_width if config.reward_from == "token" else pixels, 1)
        self.to_action = nn.Linear(dec_width, action_dim) if config.demonstrations else None
        glorot_(self)
        nn.init.normal_(self.cls, std=0.02)
        nn.init.normal_(self.mask_token, std=0.02)

        position, _ = sincos_2d(width, config.grid)
        dec_position, corner = sincos_2d(dec_width, config.grid)
        dec_position = torch.cat([torch.zeros(1, dec_width), dec_position, corner[None]])
        self.register_buffer("position", position, persistent=False)
        self.register_buffer("decoder_position", dec_position, persistent=False)
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(3, 1, 1), persistent=False)
        # of a row of uint8 pixels: arithmetic on three channels at a time is several times slower
        row_mean = 255.0 * self.mean.flatten().repeat(config.image_size)
        row_std = 255.0 * self.std.flatten().repeat(config.image_size)
        self.register_buffer("row_mean", row_mean, persistent=False)
        self.register_buffer("row_std", row_std, persistent=False)

    @property
    def tokens(self) -> int:
        """Tokens per frame that :meth:`encode` gives: CLS and the grid."""
        return self.config.grid**2 + 1

    def standardise(self, image: Tensor) -> Tensor:
        """uint8 (B, H, W, 3), or float 0..1 (B, 3, H, W), to ImageNet-standardised (B, 3, H, W)."""
        raw = image.dtype == torch.uint8
        size = self.config.image_size
        shape = image.permute(0, 3, 1, 2).shape if raw else image.shape
        if shape[1:] != (3, size, size):
            raise ValueError(
                f"image: got {tuple(shape)} after moving channels first, expected "
                f"(B, {size}, {size}, 3) uint8 or (B, 3, {size}, {size}) float."
            )
        if not raw:
            return (image - self.mean) / self.std
        rows = (image.flatten(2).to(self.cls.dtype) - self.row_mean).div_(self.row_std)
        standardised: Tensor = rows.unflatten(2, (size, 3)).permute(0, 3, 1, 2)
        return standardised

    def encode(self, image: Tensor) -> Tensor:
        """Unmasked tokens (B, 1 + grid^2, width), CLS first, after the final norm."""
        x = self.stem(self.standardise(image)) + self.position
        tokens: Tensor = self.encoder(torch.cat([self.cls.expand(len(x), -1, -1), x], 1))
        return tokens

    def masked_encode(
        self, image: Tensor, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Tokens (B, 1 + kept, width) of a random subset, drawn for every frame.

        Also ``restore`` (B, grid^2), which puts kept-then-masked tokens back in their places.
        """
        return self._masked_encode(self.standardise(image), generator)

    def _masked_encode(
        self, image: Tensor, generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor]:
        """The same for standardised images."""
        x = self.stem(image) + self.position
        batch, count, width = x.shape
        keep = int(count * (1.0 - self.config.mask_ratio))
        noise = torch.rand(batch, count, generator=generator, device=x.device)
        if keep == count:
            noise = noise.sort(1).values  # nothing is masked: leave the order alone
        shuffle = noise.argsort(1)
        kept = x.gather(1, shuffle[:, :keep, None].expand(-1, -1, width))
        tokens = self.encoder(torch.cat([self.cls.expand(batch, -1, -1), kept], 1))
        return tokens, shuffle.argsort(1)

    def decode(self, tokens: Tensor, restore: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Standardised patches (B, grid^2, 192) and symlog reward (B,) from encoder tokens.

        Without ``restore`` the tokens are the whole grid in order (open-loop prediction).
        """
        x = self._decoded(tokens, restore)
        patches = self.to_pixels(x[:, 1:-1])
        return patches, self._reward(x, patches)

    def _reward(self, decoded: Tensor, patches: Tensor) -> Tensor:
        """Symlog reward (B,) from decoder tokens and the patches predicted from them."""
        source = decoded if self.config.reward_from == "token" else patches
        reward: Tensor = self.to_reward(source[:, -1]).squeeze(-1)
        return reward

    def _decoded(self, tokens: Tensor, restore: Tensor | None) -> Tensor:
        """Decoder tokens (B, 1 + grid^2 + 1, width): CLS, grid, the task's token."""
        x = self.embed(tokens)
        batch, _, width = x.shape
        cls, grid = x[:, :1], x[:, 1:]
        missing = self.config.grid**2 - grid.shape[1]
        grid = torch.cat([grid, self.mask_token.expand(batch, missing, -1)], 1)
        if restore is not None:
            grid = grid.gather(1, restore[..., None].expand(-1, -1, width))
        x = torch.cat([cls, grid, self.mask_token.expand(batch, 1, -1)], 1) + self.decoder_position
        decoded: Tensor = self.decoder(x)
        return decoded

    def image(self, tokens: Tensor) -> Tensor:
        """Reconstructed images (B, 3, H, W) in 0..1 from unmasked tokens."""
        patches, _ = self.decode(tokens)
        image = unpatchify(patches.float(), PATCH, self.config.grid)
        return (image * self.std + self.mean).clamp(0.0, 1.0)

    def loss(
        self, rows: Mapping[str, Tensor], generator: torch.Generator | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean squared error over all pixels plus that of the symlog reward (MWM, section 4.1).

        Rows of a batch in arrival form: image (N, ...), reward (N,) on arriving at the frame,
        reward_known (N,) bool; for demonstrations demo (N,) and next_action (N, A).
        """
        image = self.standardise(rows["image"])
        tokens, restore = self._masked_encode(image, generator)
        x = self._decoded(tokens, restore)
        target = patchify(image, PATCH)
        patches = self.to_pixels(x[:, 1:-1])
        metrics = {"ae/pixel_loss": (patches.float() - target).square().mean()}
        if self.config.reward_prediction:
            error = (self._reward(x, patches).float() - symlog(rows["reward"])).square()
            metrics["ae/reward_loss"] = mean_over(error, rows["reward_known"])
        weights = {"ae/reward_loss": self.config.reward_scale}
        if self.to_action is not None and "demo" in rows:
            metrics["ae/demonstration_loss"] = squared_loss(self.to_action(x[:, -1]), rows)
            weights["ae/demonstration_loss"] = self.config.demonstrations
        total: Tensor = sum(weights.get(n, 1.0) * value for n, value in metrics.items())
        return total, metrics
