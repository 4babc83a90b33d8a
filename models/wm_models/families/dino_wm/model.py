"""DINO-WM behind the world-model contract."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from wm_models.encoders.registry import EncoderConfig
from wm_models.encoders.timm import TimmConfig
from wm_models.errors import ModelError
from wm_models.families.dino_wm import history
from wm_models.families.dino_wm.decoder import Decoder, DecoderConfig
from wm_models.families.dino_wm.history import DinoState
from wm_models.families.dino_wm.predictor import Predictor, PredictorConfig, repeat_cache
from wm_models.families.dino_wm.probe import Probe, ProbeConfig
from wm_models.families.dino_wm.scale import TokenScale
from wm_models.families.dino_wm.tokens import Embedding, Layout, ProprioEmbedding, TokenConfig
from wm_models.interface.checked import Checked
from wm_models.interface.embodiment import Embodiment
from wm_models.interface.state import State, expand, index
from wm_models.interface.world_model import ModelSpec, Rollout, WorldModel

FEATURES = ("feat", "visual", "proprio")
SLIDES = ("exact", "cached")


@dataclass(frozen=True)
class DinoConfig:
    """Everything that decides the shape of the weights and the meaning of a rollout.

    The defaults are the release's.
    """

    encoder: EncoderConfig = field(default_factory=TimmConfig)
    tokens: TokenConfig = field(default_factory=TokenConfig)
    predictor: PredictorConfig = field(default_factory=PredictorConfig)
    decoder: DecoderConfig | None = field(default_factory=DecoderConfig)
    probe: ProbeConfig | None = None
    num_hist: int = 3  # frames in the predictor's window
    frameskip: int = 5  # robot steps per model step
    context: int = 1  # frames that the filter keeps: what a plan begins from
    standardise: bool = False  # z-score every token's numbers over the first frames learned from
    residual: bool = False  # predict the change; at first, that nothing changes
    slide: str = "exact"  # when the window slides: "exact" recomputes it, "cached" does not

    def __post_init__(self) -> None:
        Checked(self).whole("num_hist", "frameskip", "context", high=1000)
        Checked(self).flag("standardise", "residual")
        if not 1 <= self.context <= self.num_hist:
            raise ModelError(f"context: got {self.context}, expected 1 to {self.num_hist}.")
        if self.slide not in SLIDES:
            raise ModelError(f"slide: got {self.slide!r}, expected {' or '.join(SLIDES)}.")
        if self.frameskip < 1:
            raise ModelError(f"frameskip: got {self.frameskip}, expected at least 1.")


class ObservationEncoder(nn.Module):
    """Observation to tokens: visual encoder and embedding of proprioception."""

    def __init__(self, config: DinoConfig, layout: Layout, embodiment: Embodiment) -> None:
        super().__init__()
        self.picture = config.encoder.make()
        self.scale = TokenScale(layout.count, layout.visual) if config.standardise else None
        self.proprio = None
        if embodiment.proprio_dim:
            self.proprio = ProprioEmbedding(config.tokens.proprio, embodiment, layout.proprio)

    def visual(self, image: Tensor) -> Tensor:
        """Tokens (B, N, d) of images, uint8 (B, H, W, 3) or float 0..1 (B, 3, H, W)."""
        tokens: Tensor = self.picture(image)
        return tokens if self.scale is None else self.scale.forward(tokens)


class Dynamics(nn.Module):
    """Tokens and an action to the next tokens."""

    def __init__(self, config: DinoConfig, layout: Layout, action_dim: int) -> None:
        super().__init__()
        self.action = Embedding(action_dim, layout.action, config.tokens.action.fixed)
        self.predictor = Predictor(config.predictor, config.num_hist, *layout.tokens)
        if config.residual:
            nn.init.zeros_(self.predictor.norm.weight)


class DinoWorldModel(WorldModel):
    """Frozen patch features, predicted frame by frame.

    Actions are z-scored with the embodiment's statistics, ``frameskip`` of them side by side.
    A rollout is exact, and fast where that costs nothing: frames before the newest are shared
    between candidates, keys and values are kept while the window grows, and the last block asks for
    the newest frame alone. Features: "visual" [N, d], "proprio" [p], "feat" both, flat.
    """

    embodiment: Embodiment

    def __init__(self, config: DinoConfig, embodiment: Embodiment) -> None:
        super().__init__()
        self.config, self.embodiment = config, embodiment
        grid, size = config.encoder.grid, config.encoder.image_size
        self.layout = Layout.of(
            config.tokens, grid * grid, config.encoder.width, embodiment.proprio_dim > 0
        )
        self.spec = self._spec(config, embodiment)
        self.encoder = ObservationEncoder(config, self.layout, embodiment)
        self.dynamics = Dynamics(config, self.layout, self.spec.action_dim)
        self.decoder = None
        if config.decoder is not None:
            self.decoder = Decoder(config.decoder, config.encoder.width, grid, size)
        self.probe = None
        if config.probe is not None and embodiment.proprio_dim:
            self.probe = Probe(config.probe, size, embodiment.proprio_dim)

    @staticmethod
    def _spec(config: DinoConfig, embodiment: Embodiment) -> ModelSpec:
        stats = list(zip(embodiment.action_mean, embodiment.action_std, strict=True))
        low = [(x - m) / s for x, (m, s) in zip(embodiment.action_low, stats, strict=True)]
        high = [(x - m) / s for x, (m, s) in zip(embodiment.action_high, stats, strict=True)]
        size = config.encoder.image_size
        proprio = {"proprio": (embodiment.proprio_dim,)} if embodiment.proprio_dim else {}
        return ModelSpec(
            action_low=tuple(low) * config.frameskip,
            action_high=tuple(high) * config.frameskip,
            obs_keys={"image": (3, size, size), **proprio},
            frameskip=config.frameskip,
            model_dt=embodiment.period_s * config.frameskip,
            context=config.context,
            has_goal=True,
            has_decoder=config.decoder is not None,
            state_module="encoder",  # the state is a window of its tokens
        )

    def modules_by_name(self) -> dict[str, nn.Module]:
        optional = {"decoder": self.decoder, "probe": self.probe}
        here = {name: module for name, module in optional.items() if module is not None}
        return {"encoder": self.encoder, "world_model": self.dynamics, **here}

    def parts_for(self, *verbs: str) -> tuple[str, ...]:
        needed: dict[str, set[str]] = {
            "encode": {"encoder"},
            "filter": set(),  # it keeps what it is given
            "act": set(),
            "plan": {"encoder", "world_model", "probe"},  # goals are encoded
            "decode": {"decoder"},
        }
        return self._parts(needed, verbs)

    # filter ---------------------------------------------------------------------------------

    def initial(self, batch: int, device: torch.device | str | None = None) -> DinoState:
        like = self.dynamics.predictor.position.detach()
        return history.empty(
            batch,
            self.config.num_hist,
            self.layout.observed,
            self.spec.action_dim,
            like if device is None else like.new_empty((), device=device),
        )

    def encode(self, obs: Mapping[str, Tensor]) -> Tensor:
        """Observed tokens [B, M, W] of "image", and of "proprio" where the embodiment has it."""
        return self.layout.observe(self.encoder.visual(obs["image"]), self._proprio(obs))

    def _proprio(self, obs: Mapping[str, Tensor]) -> Tensor | None:
        if self.encoder.proprio is None:
            return None
        if "proprio" not in obs:
            raise ModelError(
                f"proprio: got only {', '.join(sorted(obs))}, expected "
                f"{self.embodiment.proprio_dim} numbers besides the image."
            )
        embedded: Tensor = self.encoder.proprio(obs["proprio"])
        return embedded

    def filter(
        self,
        state: State,
        prev_action: Tensor,
        features: Tensor,
        is_first: Tensor,
        *,
        generator: torch.Generator | None = None,
    ) -> DinoState:
        length = torch.where(is_first, 0, state.length)
        state = history.with_action(state._replace(length=length), prev_action)
        return history.with_frame(state, features, self.config.context)

    def pack(self, state: State) -> Tensor:
        return history.pack(state)

    def unpack(self, flat: Tensor) -> DinoState:
        return history.unpack(
            flat, self.config.num_hist, self.layout.observed, self.spec.action_dim
        )

    # imagination ----------------------------------------------------------------------------

    def tokens(self, observed: Tensor, action: Tensor) -> Tensor:
        """Input of the predictor [..., M, D], from observed tokens [..., M, W] and actions."""
        return self.layout.act(observed, self.dynamics.action(action))

    def predicted(self, tokens: Tensor, before: Tensor) -> Tensor:
        """Observed tokens [..., M, W] of the predictor's output, for the frame after ``before``."""
        out = self.layout.without_action(tokens)
        return before + out if self.config.residual else out

    def step(
        self, state: State, action: Tensor, *, generator: torch.Generator | None = None
    ) -> DinoState:
        state = history.with_action(state, action)
        rows = torch.arange(len(action), device=action.device)
        out = self.dynamics.predictor(self.tokens(state.observed, state.action))
        observed = self.predicted(out[rows, state.newest], state.newest_frame())
        return history.with_frame(state, observed, self.config.num_hist)

    def readout(
        self,
        state: State,
        want: frozenset[str],
        *,
        generator: torch.Generator | None = None,
    ) -> dict[str, Tensor]:
        self._check_want(want)
        return self._features(state.newest_frame(), want)

    def _features(self, observed: Tensor, want: frozenset[str]) -> dict[str, Tensor]:
        """Features of observed tokens [..., M, W]."""
        features = {"visual": self.layout.visual_of(observed)}
        if self.layout.proprio:
            features["proprio"] = self.layout.proprio_of(observed)
        if "feat" in want:
            proprio = [features["proprio"]] if "proprio" in features else []
            features["feat"] = torch.cat([features["visual"].flatten(-2), *proprio], -1)
        return {name: value for name, value in features.items() if name in want}

    def _rollout_chunk(
        self,
        state: State,
        actions: Tensor,
        want: frozenset[str],
        keep_last: bool,
        generator: torch.Generator | None,
    ) -> Rollout:
        """Rows with equally many frames are imagined together."""
        self._check_known(want)
        counts = state.length.clamp_min(1)
        known = counts.unique().tolist()
        if len(known) == 1:
            return self._imagine(state, actions, want, keep_last, known[0])
        groups = [torch.nonzero(counts == n)[:, 0] for n in known]
        order = torch.cat(groups).argsort()
        parts = [
            self._imagine(index(state, rows), actions[rows], want, keep_last, n)
            for rows, n in zip(groups, known, strict=True)
        ]
        last = None
        if keep_last:
            size = actions.shape[1]
            joined = [torch.cat(leaves) for leaves in zip(*(p.last for p in parts), strict=True)]
            last = DinoState(*[x.unflatten(0, (-1, size))[order].flatten(0, 1) for x in joined])
        return Rollout(
            feat={k: torch.cat([p.feat[k] for p in parts])[order] for k in parts[0].feat},
            approximate=any(p.approximate for p in parts),
            last=last,
        )

    def _imagine(
        self, state: DinoState, actions: Tensor, want: frozenset[str], keep_last: bool, length: int
    ) -> Rollout:
        """Candidates [B, S, H, A] from states of ``length`` frames each."""
        batch, candidates, horizon, _ = actions.shape
        net, frames = self.dynamics.predictor, self.config.num_hist
        flat = actions.flatten(0, 1)
        cache = None
        if length > 1:  # frames with executed actions: the same for all candidates
            past = self.tokens(state.observed[:, : length - 1], state.action[:, : length - 1])
            cache = repeat_cache(net.remember(past), candidates)
        start = expand(state, candidates)
        window = list(start.observed[:, :length].unbind(1))
        taken = list(start.action[:, : length - 1].unbind(1))
        predicted: list[Tensor] = []
        for t in range(horizon):
            now, taken = window[-1], [*taken, flat[:, t]]
            if length + t <= frames:
                out, cache = net.grow(self.tokens(now, taken[-1]), cache, length + t - 1)
            elif self.config.slide == "cached":
                assert cache is not None
                cache = net.forget(cache) if frames > 1 else None
                out, cache = net.grow(self.tokens(now, taken[-1]), cache, frames - 1)
            else:
                recent = self.tokens(
                    torch.stack(window[-frames:], 1), torch.stack(taken[-frames:], 1)
                )
                out = net.newest(recent)
            window.append(self.predicted(out, now))
            predicted.append(window[-1])
        kept = predicted[-1:] if "last" in want else predicted
        observed = torch.stack(kept, 1).unflatten(0, (batch, candidates))
        return Rollout(
            feat=self._features(observed, want),
            approximate=self.config.slide == "cached" and 1 < frames < length + horizon - 1,
            last=history.of_frames(window, taken, frames) if keep_last else None,
        )

    def _check_known(self, want: frozenset[str]) -> None:
        able = {*FEATURES, "last"} - ({"proprio"} if not self.layout.proprio else set())
        if not want <= able:
            raise ModelError(
                f"rollout: this model has no readout named {', '.join(sorted(want - able))}; "
                f"it has {', '.join(sorted(able))}."
            )

    # goals and images -----------------------------------------------------------------------

    def encode_goal(self, obs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Features of a goal image. Its proprioception is that of ``obs``, else the estimate of the
        probe; without a probe there is only "visual"."""
        visual = self.encoder.visual(obs["image"])
        if self.encoder.proprio is None:
            return self._features(visual, frozenset(FEATURES))
        if "proprio" in obs:
            proprio = self.encoder.proprio(obs["proprio"])
        elif self.probe is not None:
            proprio = self.encoder.proprio.linear(self.probe(obs["image"]))
        else:
            return {"visual": visual}
        return self._features(self.layout.observe(visual, proprio), frozenset(FEATURES))

    def decode(self, state: State) -> dict[str, Tensor]:
        if self.decoder is None:
            return super().decode(state)
        visual = self.readout(state, frozenset({"visual"}))["visual"]
        return {"image": ((self.decoder(visual) + 1.0) / 2.0).clamp(0.0, 1.0)}
