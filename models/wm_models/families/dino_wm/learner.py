"""Training of DINO-WM: first its own encoder, if it has one, then predictor and decoder apart."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wm_models.encoders.feature_cache import FeatureCache
from wm_models.errors import ModelError
from wm_models.families.dino_wm.model import DinoWorldModel
from wm_models.interface.checked import Checked
from wm_models.interface.learner import BatchSpec
from wm_models.nets.optimizer import Optimizer, OptimizerConfig

INFINITE = float("inf")


@dataclass(frozen=True)
class DinoLearnerConfig:
    """How the parts are trained. The defaults are the release's."""

    batch: int = 32  # windows of num_hist + 1 frames
    # AdamW at 5e-4 with weight decay 0.01, no schedule, no clipping
    predictor: OptimizerConfig = field(
        default_factory=lambda: OptimizerConfig(
            lr=5e-4, eps=1e-8, clip=INFINITE, decay=5e-6, decay_all=True
        )
    )
    decoder: OptimizerConfig = field(
        default_factory=lambda: OptimizerConfig(lr=3e-4, eps=1e-8, clip=INFINITE, decay=0.0)
    )
    probe: OptimizerConfig = field(
        default_factory=lambda: OptimizerConfig(lr=3e-4, eps=1e-8, clip=1.0, decay=0.0)
    )
    encoder: OptimizerConfig = field(
        default_factory=lambda: OptimizerConfig(lr=1e-3, eps=1e-8, clip=1.0, decay=0.0)
    )
    encoder_batch: int = 64  # single frames
    encoder_updates: int = 0  # first updates, of our own encoder and the decoder
    measure_updates: int = 0  # then updates that measure the scale of tokens, where it is used
    decoder_every: int = 1  # updates of the predictor per one of the decoder
    feature_bytes: int = 4 << 30  # features of the frozen encoder kept in memory
    prefill: int = 2000  # random steps before training starts
    train_every: int = 1  # agent steps per update

    def __post_init__(self) -> None:
        check = Checked(self)
        check.whole("batch", "encoder_batch", "decoder_every", "train_every")
        check.whole("encoder_updates", "measure_updates", "feature_bytes", "prefill", low=0)


class DinoLearner:
    """Owns the optimisers, the features seen so far and the random generator.

    One :meth:`update` is a function of the weights, this object's :meth:`state_dict` and the
    batches alone: equal inputs give equal weights, bit for bit on CPU.
    """

    def __init__(
        self,
        model: DinoWorldModel,
        config: DinoLearnerConfig,
        *,
        seed: int = 0,
        device: str | torch.device = "cpu",
    ) -> None:
        own = model.config.encoder.trains
        if (config.measure_updates > 0) != (model.encoder.scale is not None):
            raise ModelError(
                f"measure_updates: got {config.measure_updates}, expected more than 0 where the "
                "model standardises, else 0."
            )
        if config.encoder_updates and not (own and model.decoder is not None):
            raise ModelError(
                f"encoder_updates: got {config.encoder_updates}, expected 0 unless the encoder is "
                "our own and there is a decoder to train it with."
            )
        self.device = torch.device(device)
        self.model = model.to(self.device).train()
        self.config = config
        self.updates = 0
        self.generator = torch.Generator().manual_seed(seed)
        self.features = FeatureCache(self._visual, config.feature_bytes)
        proprio = model.encoder.proprio
        predicting: list[nn.Module] = [model.dynamics, *([proprio] if proprio is not None else [])]
        self.optimizers = {"wm": Optimizer("wm", predicting, config.predictor)}
        if model.decoder is not None:
            self.optimizers["decoder"] = Optimizer("decoder", [model.decoder], config.decoder)
        if model.probe is not None:
            self.optimizers["probe"] = Optimizer("probe", [model.probe], config.probe)
        if config.encoder_updates and model.decoder is not None:
            reconstruction = [model.encoder.picture, model.decoder]
            self.optimizers["encoder"] = Optimizer("encoder", reconstruction, config.encoder)

    @property
    def fields(self) -> frozenset[str]:
        return frozenset({"image", "action"} | ({"proprio"} if self._has_proprio else set()))

    @property
    def batch_specs(self) -> Mapping[str, BatchSpec]:
        """Single frames for the encoder; then windows of log rows, ``frameskip`` per frame."""
        if self.updates < self.initial_updates:
            return {"frames": BatchSpec(self.config.encoder_batch, 1)}
        c = self.model.config
        return {"windows": BatchSpec(self.config.batch, c.num_hist * c.frameskip + 1)}

    @property
    def initial_updates(self) -> int:
        return self.config.encoder_updates + self.config.measure_updates

    @property
    def phase(self) -> str:
        if self.updates < self.config.encoder_updates:
            return "encoder"
        return "scale" if self.updates < self.initial_updates else "world_model"

    def begin_with(self, step: int) -> None:
        self.updates = min(step, self.initial_updates)

    def update(self, batches: Mapping[str, Mapping[str, Tensor]]) -> dict[str, float]:
        """One update. Batches of log rows: image (B, T, H, W, 3) uint8, action (B, T, A) in the
        model's units per robot step, proprio (B, T, P).

        Raises FloatingPointError, before the step at fault, when a loss or gradient is not finite.
        """
        self.model.train()
        metrics: dict[str, float] = {}
        with torch.random.fork_rng(self._gpus()):  # dropout draws from the global generator
            torch.manual_seed(int(torch.randint(2**62, (), generator=self.generator)))
            if "frames" in batches:
                images = batches["frames"]["image"][:, 0]
                trains_encoder = self.phase == "encoder"
                metrics |= self.update_encoder(images) if trains_encoder else self.measure(images)
            if "windows" in batches:
                metrics |= self.update_predictor(batches["windows"])
        self.updates += 1
        return metrics

    def update_encoder(self, images: Tensor) -> dict[str, float]:
        """One step of our own encoder and the decoder on images (B, H, W, 3)."""
        decoder, encoder = self.model.decoder, self.model.encoder.picture
        assert decoder is not None
        images = images.to(self.device)
        loss = F.mse_loss(decoder(encoder(images)), _signed(images))
        norm = self.optimizers["encoder"].step(loss)
        self.features.clear()
        return {"encoder/pixel_loss": float(loss.detach()), **norm}

    def measure(self, images: Tensor) -> dict[str, float]:
        """Update the scale of tokens with images (B, H, W, 3)."""
        scale = self.model.encoder.scale
        assert scale is not None
        with torch.no_grad():
            scale.measure(self.model.encoder.picture(images.to(self.device)))
        self.features.clear()
        return {"scale/deviation": float(scale.variance.mean().sqrt())}

    def update_predictor(self, batch: Mapping[str, Tensor]) -> dict[str, float]:
        """One step of predictor and embeddings on windows, and of the decoder where it is due."""
        c = self.model.config
        images = batch["image"][:, :: c.frameskip]  # (B, h + 1, H, W, 3)
        visual = self.features(images.flatten(0, 1)).to(self.device)
        visual = visual.unflatten(0, images.shape[:2])
        action = batch["action"][:, :-1].to(self.device).float()
        action = action.unflatten(1, (c.num_hist, c.frameskip)).flatten(-2)  # (B, h, f A)
        proprio = None
        if self._has_proprio:
            proprio = batch["proprio"][:, :: c.frameskip].to(self.device)
        loss, metrics = self.loss(visual, proprio, action)
        metrics |= self.optimizers["wm"].step(loss)
        if self.updates % self.config.decoder_every == 0:
            metrics |= self._update_decoder(visual, images)
        return metrics | self._update_probe(images, proprio)

    def loss(
        self, visual: Tensor, proprio: Tensor | None, action: Tensor
    ) -> tuple[Tensor, dict[str, float]]:
        """Squared error of all predicted frames: the mean over everything but the action's part.

        visual (B, h + 1, N, d), proprio (B, h + 1, P), action (B, h, f A). The target is detached.
        """
        model, embed = self.model, self.model.encoder.proprio
        embedded = None if embed is None or proprio is None else embed(proprio)
        observed = model.layout.observe(visual, embedded)
        before, after = observed[:, :-1], observed[:, 1:].detach()
        out = model.dynamics.predictor(model.tokens(before, action))
        error = (model.predicted(out, before) - after).square()
        loss = error.mean()
        still = (before.detach() - after).square()  # of predicting that nothing changes
        metrics = {
            "wm/loss": float(loss.detach()),
            "wm/still_loss": float(still.mean()),
            "wm/visual_loss": float(model.layout.visual_of(error).detach().mean()),
        }
        if embedded is not None:
            metrics["wm/proprio_loss"] = float(model.layout.proprio_of(error).detach().mean())
            metrics["wm/proprio_std"] = float(embedded.detach().flatten(0, 1).std(0).mean())
        return loss, metrics

    def _update_decoder(self, visual: Tensor, images: Tensor) -> dict[str, float]:
        """One step of the decoder on frozen features: it reaches nothing else."""
        if self.model.decoder is None:
            return {}
        target = _signed(images.flatten(0, 1).to(self.device))
        pixels = F.mse_loss(self.model.decoder(visual.detach().flatten(0, 1)), target)
        norm = self.optimizers["decoder"].step(pixels)
        return {"decoder/pixel_loss": float(pixels.detach()), **norm}

    def _update_probe(self, images: Tensor, proprio: Tensor | None) -> dict[str, float]:
        """One step of the probe on the first frame of each window: the others are nearly equal."""
        probe, embed = self.model.probe, self.model.encoder.proprio
        if probe is None or embed is None or proprio is None:
            return {}
        error = F.mse_loss(probe(images[:, 0].to(self.device)), embed.scores(proprio[:, 0]))
        return {"probe/loss": float(error.detach()), **self.optimizers["probe"].step(error)}

    def state_dict(self) -> dict[str, Any]:
        """Everything besides the weights that decides the next update; features come again."""
        return {
            "updates": self.updates,
            "generator": self.generator.get_state(),
            "optimizers": {k: v.state_dict() for k, v in self.optimizers.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.updates = state["updates"]
        self.generator.set_state(state["generator"].cpu())
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])
        self.features.clear()

    @property
    def _has_proprio(self) -> bool:
        return self.model.encoder.proprio is not None

    def _visual(self, images: Tensor) -> Tensor:
        return self.model.encoder.visual(images.to(self.device))

    def _gpus(self) -> list[torch.device]:
        return [self.device] if self.device.type == "cuda" else []


def _signed(images: Tensor) -> Tensor:
    """uint8 (B, H, W, 3) to (B, 3, H, W) in -1..1, the decoder's scale."""
    return images.permute(0, 3, 1, 2).float() / 127.5 - 1.0
