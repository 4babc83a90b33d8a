"""Masked World Models in plain float64 formulas, as a reference for the package: slow and small.

Written from MWM (sections 3 and 4, appendices A and D), DreamerV2 (algorithm 1 and its losses) and
Kingma and Ba; nothing here calls a layer, a distribution, a loss or an optimiser of the package.
Weights go by the names of the package's state_dict. Random numbers are drawn in the package's order
and shapes from a generator of the same seed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
PATCH = 8
ETA, GAMMA, LAMBDA, MOMENTUM = 1e-4, 0.99, 0.95, 0.99
CLIP, DECAY, EPSILON = 100.0, 1e-6, 1e-5


@dataclass(frozen=True)
class Sizes:
    grid: int
    heads: int  # of every attention
    layers: int  # hidden, of every head
    stoch: int
    classes: int
    actions: int
    horizon: int
    keep: int  # tokens that are not masked


class Adam:
    """Kingma and Ba (2015), in the order of the end of their section 2, with Dreamer's decay."""

    def __init__(self, names: list[str], rate: float, warmup: int, decay_all: bool) -> None:
        self.names, self.rate, self.warmup, self.decay_all = names, rate, warmup, decay_all
        self.first: dict[str, Tensor] = {}
        self.second: dict[str, Tensor] = {}
        self.steps = 0

    def step(self, loss: Tensor, weights: dict[str, Tensor]) -> None:
        grads = torch.autograd.grad(loss, [weights[n] for n in self.names], retain_graph=True)
        norm = math.sqrt(sum(float(g.square().sum()) for g in grads))
        rate = self.rate * (min(self.steps / self.warmup, 1.0) if self.warmup else 1.0)
        self.steps += 1
        rate *= math.sqrt(1 - 0.999**self.steps) / (1 - 0.9**self.steps)
        for name, raw in zip(self.names, grads, strict=True):
            g = raw * min(1.0, CLIP / norm)
            m = 0.9 * self.first.get(name, torch.zeros_like(g)) + 0.1 * g
            v = 0.999 * self.second.get(name, torch.zeros_like(g)) + 0.001 * g * g
            self.first[name], self.second[name] = m, v
            old = weights[name].detach()
            if self.decay_all or old.ndim in (2, 4):  # kernels of linear maps and convolutions
                old = (1 - DECAY) * old
            weights[name] = (old - rate * m / (v.sqrt() + EPSILON)).requires_grad_()


class Reference:
    """Weights, and complete updates of them: autoencoder, world model, actor, critic."""

    def __init__(self, weights: Mapping[str, Tensor], sizes: Sizes, seed: int) -> None:
        self.w = {
            n: v.double().requires_grad_() for n, v in weights.items() if v.is_floating_point()
        }
        self.w.pop("critic.scale")
        self.sizes, self.generator = sizes, torch.Generator().manual_seed(seed)
        self.slow = self._critic()
        self.magnitude, self.updates = 1.0, 0

        def part(name: str) -> list[str]:
            return [n for n in self.w if n.startswith(name + ".")]

        self.adams = {
            "autoencoder": Adam(part("autoencoder"), 1e-3, 2, decay_all=True),
            "dynamics": Adam(part("dynamics"), 1e-3, 0, decay_all=False),
            "actor": Adam(part("actor"), 1e-4, 0, decay_all=False),
            "critic": Adam(part("critic"), 1e-4, 0, decay_all=False),
        }

    def update(self, frames: Mapping[str, Tensor], windows: Mapping[str, Tensor]) -> None:
        """One complete update. frames: image (N, H, W, 3), reward (N,). windows: image
        (B, T, H, W, 3), action (B, T, A), reward, first, terminal (B, T) of the step to it."""
        self.adams["autoencoder"].step(self.autoencoder_loss(**frames), self.w)
        loss, state = self.world_model_loss(**windows)
        self.adams["dynamics"].step(loss, self.w)
        actor, critic = self.behavior_losses(state, windows["terminal"])
        self.adams["actor"].step(actor, self.w)
        self.adams["critic"].step(critic, self.w)
        if self.updates % 100 == 0:
            self.slow = self._critic()
        self.updates += 1

    # autoencoder --------------------------------------------------------------------------------

    def autoencoder_loss(self, image: Tensor, reward: Tensor) -> Tensor:
        s, x = self.sizes, standardised(image)
        noise = torch.rand(len(x), s.grid**2, generator=self.generator)
        order = noise.argsort(1)
        tokens = self._stem(x)
        visible = torch.stack([t[o[: s.keep]] for t, o in zip(tokens, order, strict=True)])
        x_visible = self._encoder(visible)

        embedded = self._linear("autoencoder.embed", x_visible)
        mask = self.w["autoencoder.mask_token"][0, 0]
        grid = mask.expand(len(x), s.grid**2, -1).clone()
        for i, o in enumerate(order):
            grid[i, o[: s.keep]] = embedded[i, 1:]
        last = mask.expand(len(x), 1, -1)
        table = table_of(mask.shape[0], s.grid)
        positions = torch.cat([torch.zeros_like(table[:1]), table])
        y = torch.cat([embedded[:, :1], grid, last], 1) + positions
        y = self._vit("autoencoder.decoder", y)

        patches = self._linear("autoencoder.to_pixels", y[:, 1:-1])
        pixel_loss = (patches - patches_of(x)).square().mean()
        predicted = self._linear("autoencoder.to_reward", patches[:, -1])[:, 0]  # as released
        return pixel_loss + (predicted - symlog(reward.double())).square().mean()

    def _stem(self, x: Tensor) -> Tensor:
        for i in (0, 2, 4):
            x = self._convolved(f"autoencoder.stem.net.{i}", x, 2, 1).clamp_min(0)
        x = self._convolved("autoencoder.stem.net.6", x, 1, 0).flatten(2).transpose(1, 2)
        return x + table_of(x.shape[-1], self.sizes.grid)[:-1]

    def _convolved(self, name: str, x: Tensor, stride: int, pad: int) -> Tensor:
        kernel, bias = self.w[name + ".weight"], self.w[name + ".bias"]
        size = kernel.shape[-1]
        columns = torch.nn.functional.unfold(x, size, padding=pad, stride=stride)
        side = (x.shape[-1] + 2 * pad - size) // stride + 1
        out = kernel.flatten(1) @ columns + bias[:, None]
        return out.unflatten(-1, (side, side))

    def _encoder(self, tokens: Tensor) -> Tensor:
        cls = self.w["autoencoder.cls"].expand(len(tokens), -1, -1)
        return self._vit("autoencoder.encoder", torch.cat([cls, tokens], 1))

    # world model --------------------------------------------------------------------------------

    def world_model_loss(
        self, image: Tensor, action: Tensor, reward: Tensor, first: Tensor, terminal: Tensor
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        s, (batch, length) = self.sizes, reward.shape
        tokens = self._encoder(self._stem(standardised(image.flatten(0, 1)))).detach()
        reordered = torch.cat([tokens[:, 1:], tokens[:, :1]], 1)  # CLS last
        x = self._linear("dynamics.encoder.proj", reordered)
        x = x + table_of(x.shape[-1], s.grid)
        embed = self._vit("dynamics.encoder.vit", x).mean(1).unflatten(0, (batch, length))

        u = torch.rand(batch, length, s.stoch, s.classes, generator=self.generator)
        deter = torch.zeros(batch, self._deter, dtype=torch.float64)
        stoch = torch.zeros(batch, s.stoch, s.classes, dtype=torch.float64)
        states, kl = [], []
        for t in range(length):
            continues = (~first[:, t]).double()[:, None]
            deter = self._recurrence(
                deter * continues, stoch * continues[..., None], action[:, t].double() * continues
            )
            prior = self._prior(deter)
            hidden = elu(self._linear("dynamics.rssm.post_in", torch.cat([deter, embed[:, t]], -1)))
            posterior = self._linear("dynamics.rssm.post_out", hidden).view_as(prior)
            stoch = onehot(posterior, u[:, t])
            kl.append(
                0.8 * divergence(posterior.detach(), prior)
                + 0.2 * divergence(posterior, prior.detach())
            )
            states.append((deter, stoch))
        deters, stochs = (torch.stack(x, 1) for x in zip(*states, strict=True))

        feat = torch.cat([stochs.flatten(-2), deters], -1)
        predicted = self._decoded_tokens(feat.flatten(0, 1))
        losses = [
            (predicted - tokens).square().sum(-1).mean(),
            (self._head("dynamics.reward.net", feat) - symlog(reward.double())).square().mean(),
            torch.stack(kl, 1).clamp(0.01, 100.0).mean(),
        ]
        continuation, target = self._discount(feat), GAMMA * (~terminal).double()
        cross = -(target * continuation.log() + (1 - target) * (1 - continuation).log())
        return sum(losses) + cross.mean(), (deters.detach(), stochs.detach())

    def _decoded_tokens(self, feat: Tensor) -> Tensor:
        state = self._linear("dynamics.decoder.embed", feat)[:, None]
        mask = self.w["dynamics.decoder.mask_token"][0, 0]
        table = table_of(mask.shape[0], self.sizes.grid)
        positions = torch.cat([torch.zeros_like(table[:1]), table])
        x = torch.cat([state, mask.expand(len(feat), len(table), -1)], 1) + positions
        x = self._linear("dynamics.decoder.proj", self._vit("dynamics.decoder.vit", x)[:, 1:])
        return torch.cat([x[:, -1:], x[:, :-1]], 1)

    @property
    def _deter(self) -> int:
        return len(self.w["dynamics.rssm.gru.bias"]) // 3

    def _recurrence(self, deter: Tensor, stoch: Tensor, action: Tensor) -> Tensor:
        inputs = self.w["dynamics.rssm.img_in.weight"].shape[1]
        x = torch.cat([stoch.flatten(1), action], 1)
        x = torch.cat([x, x.new_zeros(len(x), inputs - x.shape[1])], 1)
        x = self._linear("dynamics.rssm.img_in", x)  # no activation, as released
        parts = self._linear("dynamics.rssm.gru", torch.cat([x, deter], 1))
        reset, candidate, gate = self._norm("dynamics.rssm.gru_norm", parts, 1e-3).chunk(3, -1)
        gate = sigmoid(gate - 1)
        return gate * (sigmoid(reset) * candidate).tanh() + (1 - gate) * deter

    def _prior(self, deter: Tensor) -> Tensor:
        hidden = elu(self._linear("dynamics.rssm.prior.0", deter))
        logits = self._linear("dynamics.rssm.prior.2", hidden)
        return logits.unflatten(-1, (self.sizes.stoch, self.sizes.classes))

    def _discount(self, feat: Tensor) -> Tensor:
        return sigmoid(self._head("dynamics.discount.net", feat))

    # behaviour ----------------------------------------------------------------------------------

    def behavior_losses(
        self, state: tuple[Tensor, Tensor], terminal: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Dreamer's indices: state 0 was replayed, state k + 1 follows action k."""
        s = self.sizes
        deter, stoch = (x.flatten(0, 1) for x in state)
        feats, entropies = [torch.cat([stoch.flatten(1), deter], 1)], []
        for _ in range(s.horizon):
            mean, std = self._policy(feats[-1].detach())
            u = torch.rand(len(mean), s.actions, generator=self.generator)
            action, entropy = truncated(mean, std, u.double())
            deter = self._recurrence(deter, stoch, action)
            noise = torch.rand(len(mean), s.stoch, s.classes, generator=self.generator)
            stoch = onehot(self._prior(deter), noise)
            feats.append(torch.cat([stoch.flatten(1), deter], 1))
            entropies.append(entropy)
        feat = torch.stack(feats)

        raw = self._head("dynamics.reward.net", feat)
        reward = raw.sign() * (raw.abs().exp() - 1)
        mean = float(reward.detach().abs().mean())
        self.magnitude = MOMENTUM * self.magnitude + (1 - MOMENTUM) * mean
        reward = reward / (self.magnitude + 1e-8)
        replayed = GAMMA * (~terminal.flatten()).double()
        discount = torch.cat([replayed[None], self._discount(feat[1:])])
        value = self._head("critic.net", feat, self.slow)
        weights, returns = [torch.ones_like(replayed)], [value[-1]]
        for k in range(s.horizon):
            weights.append(weights[-1] * discount[k].detach())
        for k in reversed(range(s.horizon)):
            follows = (1 - LAMBDA) * value[k + 1] + LAMBDA * returns[0]
            returns.insert(0, reward[k] + discount[k] * follows)

        actor = torch.stack(
            [-weights[k] * (returns[k + 1] + ETA * entropies[k]) for k in range(s.horizon - 1)]
        ).mean()
        predicted = self._head("critic.net", feat[:-1].detach())
        critic = torch.stack(
            [weights[k] * (predicted[k] - returns[k].detach()).square() for k in range(s.horizon)]
        ).mean()
        return actor, critic

    def _policy(self, feat: Tensor) -> tuple[Tensor, Tensor]:
        for i in range(self.sizes.layers):
            feat = elu(self._linear(f"actor.body.{2 * i}", feat))
        raw = self._linear("actor.std", feat)
        return self._linear("actor.mean", feat).tanh(), 0.9 * sigmoid(raw) + 0.1

    def _critic(self) -> dict[str, Tensor]:
        return {n: v.detach().clone() for n, v in self.w.items() if n.startswith("critic.")}

    # layers -------------------------------------------------------------------------------------

    def _linear(self, name: str, x: Tensor, weights: Mapping[str, Tensor] | None = None) -> Tensor:
        w = weights or self.w
        return x @ w[name + ".weight"].T + w[name + ".bias"]

    def _norm(self, name: str, x: Tensor, epsilon: float) -> Tensor:
        x = x - x.mean(-1, keepdim=True)
        x = x / (x.square().mean(-1, keepdim=True) + epsilon).sqrt()
        return x * self.w[name + ".weight"] + self.w[name + ".bias"]

    def _head(self, name: str, x: Tensor, weights: Mapping[str, Tensor] | None = None) -> Tensor:
        layers = self.sizes.layers
        for i in range(layers):
            x = elu(self._linear(f"{name}.{2 * i}", x, weights))
        return self._linear(f"{name}.{2 * layers}", x, weights)[..., 0]

    def _vit(self, name: str, x: Tensor) -> Tensor:
        depth = 0
        while f"{name}.{depth}.attn.qkv.weight" in self.w:
            x = self._block(f"{name}.{depth}", x)
            depth += 1
        return self._norm(f"{name}.{depth}", x, 1e-6)

    def _block(self, name: str, x: Tensor) -> Tensor:
        qkv = self._linear(name + ".attn.qkv", self._norm(name + ".norm1", x, 1e-6))
        attended = []
        width = x.shape[-1] // self.sizes.heads
        for head in range(self.sizes.heads):
            at = slice(head * width, (head + 1) * width)
            query, key, value = (part[..., at] for part in qkv.chunk(3, -1))
            weight = (query @ key.transpose(1, 2) / math.sqrt(width)).softmax(-1)
            attended.append(weight @ value)
        x = x + self._linear(name + ".attn.proj", torch.cat(attended, -1))
        hidden = self._linear(name + ".mlp.fc1", self._norm(name + ".norm2", x, 1e-6))
        hidden = 0.5 * hidden * (1 + torch.erf(hidden / math.sqrt(2)))  # GELU
        return x + self._linear(name + ".mlp.fc2", hidden)


def standardised(image: Tensor) -> Tensor:
    """uint8 (N, H, W, 3) -> (N, 3, H, W)."""
    mean, std = torch.tensor(MEAN).double(), torch.tensor(STD).double()
    return ((image.double() / 255 - mean) / std).permute(0, 3, 1, 2)


def patches_of(x: Tensor) -> Tensor:
    """(N, 3, H, W) -> (N, patches, 192): row by row; inside: row, column, channel."""
    side = x.shape[-1] // PATCH
    cut = [
        x[:, :, r * PATCH : (r + 1) * PATCH, c * PATCH : (c + 1) * PATCH]
        for r in range(side)
        for c in range(side)
    ]
    return torch.stack([p.permute(0, 2, 3, 1).flatten(1) for p in cut], 1)


def table_of(width: int, grid: int) -> Tensor:
    """Sin-cos positions (grid^2 + 1, width), the last of position (grid, grid)."""

    def half(coordinate: int) -> list[float]:
        angles = [coordinate * 10000.0 ** (-4 * i / width) for i in range(width // 4)]
        return [math.sin(a) for a in angles] + [math.cos(a) for a in angles]

    positions = [(r, c) for r in range(grid) for c in range(grid)] + [(grid, grid)]
    return torch.tensor([half(c) + half(r) for r, c in positions], dtype=torch.float64)


def onehot(logits: Tensor, uniform: Tensor) -> Tensor:
    """Straight-through sample by the Gumbel maximum of float32 uniform numbers."""
    noise = -(-uniform.clamp(1e-20, 1 - 1e-7).double().log()).log()
    hot = torch.zeros_like(logits).scatter(-1, (logits + noise).argmax(-1, keepdim=True), 1.0)
    p = logits.softmax(-1)
    return hot + p - p.detach()


def divergence(p: Tensor, q: Tensor) -> Tensor:
    """KL of factorised categoricals by their logits (..., S, C): (...)."""
    p_log, q_log = p.log_softmax(-1), q.log_softmax(-1)
    return (p_log.exp() * (p_log - q_log)).sum((-2, -1))


def truncated(mean: Tensor, std: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
    """A sample (N, A), of gradient 1 to the mean and (a - mean) / std to the std, as released;
    and the entropy (N,)."""
    low, high = (-1 - mean) / std, (1 - mean) / std
    mass = cdf(high) - cdf(low)
    p = cdf(low) + u * mass
    noise = (math.sqrt(2) * torch.erfinv(2 * p - 1)).detach()
    entropy = torch.log(math.sqrt(2 * math.pi * math.e) * std * mass)
    entropy = entropy + (low * density(low) - high * density(high)) / (2 * mass)
    return mean + std * noise, entropy.sum(-1)


def cdf(x: Tensor) -> Tensor:
    return 0.5 * (1 + torch.erf(x / math.sqrt(2)))


def density(x: Tensor) -> Tensor:
    return torch.exp(-x * x / 2) / math.sqrt(2 * math.pi)


def symlog(x: Tensor) -> Tensor:
    return x.sign() * (x.abs() + 1).log()


def elu(x: Tensor) -> Tensor:
    return torch.where(x > 0, x, torch.expm1(torch.where(x > 0, 0.0, x)))


def sigmoid(x: Tensor) -> Tensor:
    return 1 / (1 + torch.exp(-x))
