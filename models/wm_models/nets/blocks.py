"""Layers shared by the models: initialised as in Keras, position tables, transformer stacks."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ACTIVATIONS = {"none": nn.Identity, "elu": nn.ELU, "relu": nn.ReLU, "silu": nn.SiLU}
NORMS = ("none", "layer", "rms")  # in front of an activation
NORM_EPS = 1e-3
RMS_EPS = 1e-4
_TRUNCATED_STD = 0.87962566103423978  # of a standard normal that is cut at 2


def glorot_(module: nn.Module) -> None:
    """Glorot-uniform weights and zero biases for every linear and convolution (Keras' default)."""
    for m in module.modules():
        if isinstance(m, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            nn.init.xavier_uniform_(m.weight)
            if m.bias is not None:
                nn.init.zeros_(m.bias)


def truncated_normal_(module: nn.Module) -> None:
    """Truncated-normal weights of fan-average variance and zero biases (DreamerV3, 2023)."""
    for m in module.modules():
        if isinstance(m, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            std = fan_average(m) ** -0.5 / _TRUNCATED_STD
            nn.init.trunc_normal_(m.weight, std=std, a=-2.0 * std, b=2.0 * std)
            if m.bias is not None:
                nn.init.zeros_(m.bias)


def truncated_normal_in_(module: nn.Module) -> None:
    """Truncated-normal weights of fan-in variance and zero biases (DreamerV3, Nature 2025)."""
    for m in module.modules():
        if isinstance(m, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            _fan_in_(m.weight, m.weight[0].numel())
            if m.bias is not None:
                nn.init.zeros_(m.bias)


def _fan_in_(weight: Tensor, fan: int) -> None:
    std = fan**-0.5 / _TRUNCATED_STD
    nn.init.trunc_normal_(weight, std=std, a=-2.0 * std, b=2.0 * std)


INITIALIZERS = {
    "glorot": glorot_,
    "truncated_normal": truncated_normal_,
    "truncated_normal_in": truncated_normal_in_,
}


def fan_average(layer: nn.Module) -> float:
    """Mean number of inputs and outputs of a linear layer or a convolution."""
    if isinstance(layer, nn.Linear):
        return (layer.in_features + layer.out_features) / 2.0
    assert isinstance(layer, nn.Conv2d | nn.ConvTranspose2d)
    pixels = layer.kernel_size[0] * layer.kernel_size[1]
    return pixels * (layer.in_channels + layer.out_channels) / 2.0


def uniform_(layer: nn.Module, scale: float) -> None:
    """Uniform weights of variance ``scale`` over the fan average, and zero biases: 1 is Glorot's
    initialisation, 0.1 that of MWM's output layers, 0 makes every output 0."""
    assert isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d)
    bound = (3.0 * scale / fan_average(layer)) ** 0.5
    nn.init.uniform_(layer.weight, -bound, bound)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def initialize_output_(layer: nn.Module, init: str, scale: float) -> None:
    """Draw an output layer's weights. ``scale`` is that of :func:`uniform_`; with
    "truncated_normal_in" the weights are drawn as hidden ones are and multiplied by it."""
    if init != "truncated_normal_in":
        uniform_(layer, scale)
        return
    truncated_normal_in_(layer)
    with torch.no_grad():
        layer.get_parameter("weight").mul_(scale)


class RMSNorm(nn.RMSNorm):
    """Division by the root mean square, in float32, and a scale (DreamerV3, Nature 2025)."""

    def __init__(self, width: int) -> None:
        super().__init__(width, eps=RMS_EPS)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.float()).to(x.dtype)


def biased(norm: str) -> bool:
    """Does a layer in front of this norm have a bias? LayerNorm and BatchNorm have their own."""
    return norm in ("none", "rms")


def norm_layer(norm: str, width: int) -> nn.Module:
    """The norm in front of an activation, of NORMS or "batch"."""
    if norm == "batch":
        return nn.BatchNorm1d(width)
    if norm == "rms":
        return RMSNorm(width)
    return nn.LayerNorm(width, eps=NORM_EPS) if norm == "layer" else nn.Identity()


class BlockLinear(nn.Module):
    """A linear layer that is diagonal in blocks: each block of the inputs reaches one block of the
    outputs. ``shared`` further inputs reach all blocks. (DreamerV3, Nature 2025.)

    weight (blocks, inputs of a block and shared ones, outputs of a block). Its initial values are
    truncated-normal with the variance that a full layer's fan-in would give, as released.
    """

    def __init__(self, width_in: int, width_out: int, blocks: int, shared: int = 0) -> None:
        super().__init__()
        self.blocks, self.own = blocks, width_in // blocks
        rows = self.own + shared
        self.weight = nn.Parameter(torch.empty(blocks, rows, width_out // blocks))
        self.bias = nn.Parameter(torch.zeros(width_out))
        _fan_in_(self.weight, rows * blocks)

    def forward(self, x: Tensor, shared: Tensor | None = None) -> Tensor:
        """(B, width_in), (B, shared) -> (B, width_out)."""
        each = x.unflatten(-1, (self.blocks, self.own)).transpose(0, 1)  # (blocks, B, own)
        if shared is not None:
            each = torch.cat([each, shared.expand(self.blocks, *shared.shape)], -1)
        out = torch.baddbmm(self.bias.view(self.blocks, 1, -1), each, self.weight)
        return out.transpose(0, 1).flatten(1)


def hidden(width_in: int, width_out: int, act: str, norm: str = "none") -> list[nn.Module]:
    """A hidden layer: linear, norm, activation. See :func:`biased`."""
    linear = nn.Linear(width_in, width_out, bias=biased(norm))
    norms = [norm_layer(norm, width_out)] if norm != "none" else []
    return [linear, *norms, ACTIVATIONS[act]()]


def mlp(
    width_in: int, units: int, layers: int, width_out: int, act: str = "elu", norm: str = "none"
) -> nn.Sequential:
    """``layers`` hidden layers of ``units`` with ``norm`` and ``act``, and a linear output."""
    widths = [width_in, *[units] * layers]
    parts = [part for a, b in pairwise(widths) for part in hidden(a, b, act, norm)]
    return nn.Sequential(*parts, nn.Linear(widths[-1], width_out))


class Attention(nn.Module):
    """Multi-head self-attention over all tokens (B, N, D)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"width: got {width}, expected a multiple of {heads} heads.")
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        b, n, d = x.shape
        qkv = self.qkv(x).reshape(b, n, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(*qkv.unbind(0))  # (B, heads, N, D / heads)
        out: Tensor = self.proj(attended.transpose(1, 2).reshape(b, n, d))
        return out


class MLP(nn.Module):
    """One hidden layer with GELU."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc2(F.gelu(self.fc1(x)))
        return out


class Block(nn.Module):
    """Pre-norm ViT block (GELU, qkv bias, LayerNorm eps 1e-6) on (B, N, D).

    Parameters, their names and their initial values are those of timm's `Block`; importing timm
    would take more than half of a node's start.
    """

    def __init__(self, width: int, heads: int, mlp_ratio: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = MLP(width, int(width * mlp_ratio))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


class Transformer(nn.Sequential):
    """Pre-norm ViT blocks and a final norm, on (B, N, D)."""

    def __init__(self, width: int, depth: int, heads: int, mlp_ratio: float = 4.0) -> None:
        blocks = [Block(width, heads, mlp_ratio) for _ in range(depth)]
        super().__init__(*blocks, nn.LayerNorm(width, eps=1e-6))


class ConvStem(nn.Module):
    """MWM's convolutional stem: k4 s2 convolutions with ReLU, then 1x1 to the token width.

    (B, 3, H, W) -> (B, H/8 * W/8, width), row by row (for three convolutions).
    """

    def __init__(self, channels: tuple[int, ...], width: int) -> None:
        super().__init__()
        sizes = (3, *channels)
        convs = [part for a, b in pairwise(sizes) for part in (nn.Conv2d(a, b, 4, 2, 1), nn.ReLU())]
        self.net = nn.Sequential(*convs, nn.Conv2d(sizes[-1], width, 1))

    def forward(self, image: Tensor) -> Tensor:
        tokens: Tensor = self.net(image).flatten(2).transpose(1, 2)
        return tokens


class PatchStem(nn.Module):
    """The ablation without convolutions: (B, 3, H, W) -> patches of 8x8x3 -> (B, N, width)."""

    def __init__(self, patch: int, width: int) -> None:
        super().__init__()
        self.patch = patch
        self.proj = nn.Linear(3 * patch * patch, width)

    def forward(self, image: Tensor) -> Tensor:
        tokens: Tensor = self.proj(patchify(image, self.patch))
        return tokens


def patchify(image: Tensor, patch: int) -> Tensor:
    """(B, 3, H, W) -> (B, H/p * W/p, p * p * 3), patch content in row, column, channel order."""
    b, c, h, w = image.shape
    x = image.reshape(b, c, h // patch, patch, w // patch, patch)
    return x.permute(0, 2, 4, 3, 5, 1).reshape(b, (h // patch) * (w // patch), patch * patch * c)


def unpatchify(tokens: Tensor, patch: int, grid: int) -> Tensor:
    """Inverse of :func:`patchify` for a square grid: (B, g*g, p*p*3) -> (B, 3, g*p, g*p)."""
    b = tokens.shape[0]
    x = tokens.reshape(b, grid, grid, patch, patch, 3).permute(0, 5, 1, 3, 2, 4)
    return x.reshape(b, 3, grid * patch, grid * patch)


def sincos_2d(width: int, grid: int) -> tuple[Tensor, Tensor]:
    """Fixed 2-D sin-cos positions: ([grid * grid, width], [width] of the extra corner token).

    Built on the integers 0..grid and cropped; the corner (grid, grid) is the added token's place.
    The first half of the channels encodes the column, the second the row; each half is
    [sin(p w_i) for all i, cos(p w_i) for all i] with w_i = 10000^(-i / (width / 4)).
    """
    if width % 4:
        raise ValueError(f"sincos_2d: got width {width}, expected a multiple of 4.")
    omega = 10000.0 ** (-torch.arange(width // 4, dtype=torch.float64) / (width / 4))
    angle = torch.arange(grid + 1, dtype=torch.float64)[:, None] * omega
    axis = torch.cat([angle.sin(), angle.cos()], 1)  # (grid + 1, width / 2)
    row = axis[:, None].expand(grid + 1, grid + 1, -1)
    col = axis[None].expand(grid + 1, grid + 1, -1)
    table = torch.cat([col, row], -1).float()
    return table[:grid, :grid].reshape(grid * grid, width), table[grid, grid]
