"""Small networks on the state's features: reward, discount, critic, actor."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from wm_models.interface.checked import Checked
from wm_models.nets.blocks import ACTIVATIONS, INITIALIZERS, NORMS, initialize_output_, mlp
from wm_models.nets.distributions import (
    ActionDistribution,
    ClippedNormal,
    Normal,
    OneHot,
    SymexpTwoHot,
    TruncatedNormal,
    TwoHot,
    bernoulli_loss,
    symexp,
    symlog,
    unimix,
)

FORMS = ("mse", "half_mse", "symlog", "twohot", "symexp_twohot", "bernoulli")
TWO_HOTS: dict[str, type[TwoHot]] = {"twohot": TwoHot, "symexp_twohot": SymexpTwoHot}


@dataclass(frozen=True)
class HeadConfig:
    """Hidden layers of every head. The defaults are MWM's."""

    units: int = 512  # of each hidden layer
    layers: int = 4  # hidden layers
    act: str = "elu"  # activation: elu, relu, silu or none
    norm: str = "none"  # in front of each activation; with "layer" the linear layers have no bias
    # hidden layers': "truncated_normal" in DreamerV3 of 2023, "truncated_normal_in" in that of 2025
    init: str = "glorot"

    def __post_init__(self) -> None:
        check = Checked(self)
        check.whole("units", "layers", high=16384)
        check.choice("act", tuple(ACTIVATIONS))
        check.choice("norm", NORMS)
        check.choice("init", tuple(INITIALIZERS))

    def net(self, width_in: int, width_out: int) -> nn.Sequential:
        """The hidden layers and a linear output."""
        return mlp(width_in, self.units, self.layers, width_out, self.act, self.norm)

    def initialize_(self, head: nn.Module) -> None:
        """Draw the initial weights of a head, as those of hidden layers."""
        INITIALIZERS[self.init](head)


class ScalarHead(nn.Module):
    """One number per state. ``form`` says what the output means and what its loss is:

    mse: the number; squared error without the 0.5 (MWM, as released). half_mse: the same with it,
    the likelihood of a normal of variance 1 (DreamerV2, APV). symlog: symlog of the number; squared
    error there. twohot: a categorical over bins that are even in symlog space (DreamerV3, 2023);
    symexp_twohot: over the same bins in the number's own space (DreamerV3, Nature 2025). bernoulli:
    a logit; cross-entropy. ``output_scale``: of the output layer's initial weights, see
    :func:`~blocks.initialize_output_`.
    """

    def __init__(
        self, width_in: int, config: HeadConfig, form: str = "mse", *, output_scale: float = 0.1
    ) -> None:
        super().__init__()
        if form not in FORMS:
            raise ValueError(f"form: got {form!r}, expected one of {', '.join(FORMS)}.")
        self.form = form
        self.net = config.net(width_in, TwoHot.BINS if form in TWO_HOTS else 1)
        config.initialize_(self)
        initialize_output_(self.net[-1], config.init, output_scale)

    def forward(self, feat: Tensor) -> Tensor:
        """The raw output, float32: (...,), a number, symlog value or logit; (..., BINS), logits of
        a two-hot form."""
        out: Tensor = self.net(feat)
        return (out if self.form in TWO_HOTS else out.squeeze(-1)).float()

    def predict(self, feat: Tensor) -> Tensor:
        """The predicted number (...,) in its own scale; of "bernoulli" the probability."""
        out = self(feat)
        if self.form == "symlog":
            return symexp(out)
        if self.form in TWO_HOTS:
            return TWO_HOTS[self.form](out).mean()
        return torch.sigmoid(out) if self.form == "bernoulli" else out

    def loss(self, feat: Tensor, target: Tensor) -> Tensor:
        """Loss (...,) of target numbers (...,) in their own scale."""
        return self.losses(feat, target)[0]

    def losses(self, feat: Tensor, *targets: Tensor) -> list[Tensor]:
        """The loss (...,) of each of several targets (...,), from one forward pass."""
        out = self(feat)
        if self.form in TWO_HOTS:
            bins = TWO_HOTS[self.form](out)
            return [bins.loss(target) for target in targets]
        return [self._error(out, target) for target in targets]

    def _error(self, out: Tensor, target: Tensor) -> Tensor:
        if self.form == "bernoulli":
            return bernoulli_loss(out, target)
        error: Tensor = out - (symlog(target) if self.form == "symlog" else target)
        return 0.5 * error.square() if self.form == "half_mse" else error.square()


class Critic(ScalarHead):
    """Value of a state, learned from normalised rewards; ``predict`` is in the reward's scale."""

    scale: Tensor

    def __init__(
        self, width_in: int, config: HeadConfig, form: str = "mse", *, output_scale: float = 0.1
    ) -> None:
        super().__init__(width_in, config, form, output_scale=output_scale)
        self.register_buffer("scale", torch.ones(()))

    def normalized(self, feat: Tensor) -> Tensor:
        """The value (...,) of normalised rewards."""
        return super().predict(feat)

    def predict(self, feat: Tensor) -> Tensor:
        return self.normalized(feat) * self.scale


@dataclass(frozen=True)
class ActorConfig:
    """The distribution of actions. The defaults are MWM's.

    kind: "truncated_normal" (MWM, DreamerV2, APV), "clipped_normal" (DreamerV3, 2023) or "normal",
    whose samples leave the box (DreamerV3, Nature 2025; the model clips what it is given, and what
    it acts), all with mean tanh(m) and std ``std_low`` + ``std_span`` sigmoid(``std_slope`` s +
    ``std_shift``), or "onehot", for discrete actions.
    """

    kind: str = "truncated_normal"  # or "clipped_normal", "normal", "onehot"
    std_low: float = 0.1  # smallest standard deviation
    std_span: float = 0.9  # largest one less the smallest
    std_slope: float = 1.0  # factor of s
    std_shift: float = 0.0  # added to s: higher begins wider
    unimix: float = 0.0  # share of the uniform distribution in "onehot"
    output_scale: float = 0.1  # of the initial weights of means or logits

    def __post_init__(self) -> None:
        check = Checked(self)
        check.choice("kind", (*NORMALS, "onehot"))
        check.number("std_low", "std_span", "std_slope", low=0.0, open_ends="low")
        check.number("std_shift")
        check.number("unimix", low=0.0, high=1.0)
        check.number("output_scale", low=0.0)

    @property
    def discrete(self) -> bool:
        return self.kind == "onehot"


NORMALS: dict[str, type[TruncatedNormal | ClippedNormal | Normal]] = {
    "truncated_normal": TruncatedNormal,
    "clipped_normal": ClippedNormal,
    "normal": Normal,
}


class Actor(nn.Module):
    """State features -> distribution of actions (..., A), in [-1, 1]^A or one-hot."""

    def __init__(
        self, width_in: int, action_dim: int, config: HeadConfig, actor: ActorConfig | None = None
    ) -> None:
        super().__init__()
        self.config = actor or ActorConfig()
        net = config.net(width_in, action_dim)
        self.body, self.mean = net[:-1], net[-1]
        self.std = None if self.config.discrete else nn.Linear(config.units, action_dim)
        config.initialize_(self)
        scale = self.config.output_scale
        initialize_output_(self.mean, config.init, scale)
        if self.std is not None and config.init != "glorot":  # Glorot's is an output layer's
            std_scale = scale if config.init == "truncated_normal_in" else 1.0
            initialize_output_(self.std, config.init, std_scale)

    def forward(self, feat: Tensor) -> ActionDistribution:
        c, x = self.config, self.body(feat)
        mean = self.mean(x).float()
        if self.std is None:
            return OneHot(unimix(mean, c.unimix))
        std = torch.sigmoid(c.std_slope * self.std(x).float() + c.std_shift)
        return NORMALS[c.kind](torch.tanh(mean), c.std_span * std + c.std_low)
