"""The contract between world models, planners and learners.

Time runs one way everywhere: o_t is observed, a_t is applied, which brings r_t and o_{t+1}.
``observe(s_{t-1}, a_{t-1}, o_t)`` gives s_t; ``step(s_t, a_t)`` gives s_{t+1}.

A *State* is an opaque pytree of tensors with a leading batch dimension. Planners only ever call
:func:`expand`, :func:`index`, :func:`detach` and :func:`to` on it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from wm_models.errors import ModelError
from wm_models.interface.embodiment import IMAGE
from wm_models.interface.state import State, expand

if TYPE_CHECKING:
    from wm_models.interface.embodiment import Embodiment

VERBS = ("encode", "filter", "act", "plan", "decode")  # what a node may need a model for
SCALARS = frozenset({"reward", "value", "cont", "disagreement"})  # of a rollout; not features


@dataclass(frozen=True)
class ModelSpec:
    """What a world model takes, and which of the optional abilities it has.

    Actions are *model actions*: ``frameskip`` robot actions side by side, within a box.
    """

    action_low: tuple[float, ...]
    action_high: tuple[float, ...]
    obs_keys: Mapping[str, tuple[int, ...]]  # e.g. {"image": (3, 64, 64)}
    frameskip: int = 1
    model_dt: float = 0.0  # seconds of real time per model step; 0 when unknown
    context: int = 1  # frames of history the filter keeps
    has_reward: bool = False
    has_value: bool = False
    has_actor: bool = False
    has_continue: bool = False
    has_goal: bool = False  # encode_goal works
    has_decoder: bool = False
    has_disagreement: bool = False  # rollouts can tell how much an ensemble's members differ
    stochastic: bool = False
    differentiable: bool = True
    uses_actions: bool = True  # False: a model of videos, whose steps ignore the action
    discrete: bool = False  # robot actions are one-hot vectors, of which a search knows nothing
    max_horizon: int | None = None
    encoder_module: str = "encoder"  # of modules_by_name: what `encode` runs
    state_module: str = "world_model"  # of modules_by_name: what makes the state in `filter`

    @property
    def action_dim(self) -> int:
        """A, the size of one model action."""
        return len(self.action_low)

    @property
    def image_keys(self) -> tuple[str, ...]:
        """Names of the observation's images: "image", or "image/NAME" of each of several cameras,
        in their order; empty for a model without images."""
        return tuple(key for key in self.obs_keys if key.partition("/")[0] == IMAGE)

    @property
    def cameras(self) -> tuple[str, ...]:
        """Names of the cameras of a model that sees several, in their order; empty for one camera,
        of any name, or none."""
        return tuple(key.partition("/")[2] for key in self.image_keys if key != IMAGE)

    @property
    def image_size(self) -> tuple[int, int] | None:
        """(H, W) of each of the observation's images; None for a model without images."""
        for key in self.image_keys:
            return self.obs_keys[key][1], self.obs_keys[key][2]
        return None

    def bounds(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """The action box as two [A] tensors on the device and in the dtype of ``like``."""
        return like.new_tensor(self.action_low), like.new_tensor(self.action_high)


@dataclass
class Rollout:
    """What imagining S candidates of H actions each gave; fields not asked for are None."""

    feat: dict[str, Tensor] = field(
        default_factory=dict
    )  # name -> [B, S, H, ...], after each action; [B, S, 1, ...] where "last" is asked for
    reward: Tensor | None = None  # [B, S, H], of each action
    cont: Tensor | None = None  # [B, S, H], probability of not having terminated
    value: Tensor | None = None  # [B, S], of the last state, in the scale of ``reward``
    disagreement: Tensor | None = None  # [B, S, H]
    last: State | None = None  # state after the last action, batch B * S
    approximate: bool = False  # the model took a short cut that changes the result


class WorldModel(nn.Module):
    """Filter, imagine, read out. Subclasses set ``spec`` and implement the abstract verbs."""

    spec: ModelSpec
    embodiment: Embodiment | None = (
        None  # the robot it is for; None: robot and model actions are the same
    )

    # filter ---------------------------------------------------------------------------------

    def initial(self, batch: int, device: torch.device | str | None = None) -> State:
        """State before the first observation, leaves [batch, ...]."""
        raise NotImplementedError

    def encode(self, obs: Mapping[str, Tensor]) -> Tensor:
        """Features [B, N, D] of one observation: N tokens of D numbers."""
        raise NotImplementedError

    def filter(
        self,
        state: State,
        prev_action: Tensor,
        features: Tensor,
        is_first: Tensor,
        *,
        generator: torch.Generator | None = None,
    ) -> State:
        """One filter step. prev_action [B, A], features [B, N, D], is_first [B] bool.

        Where ``is_first`` holds, ``state`` and ``prev_action`` are forgotten.
        """
        raise NotImplementedError

    def observe(
        self,
        state: State,
        prev_action: Tensor,
        obs: Mapping[str, Tensor],
        is_first: Tensor,
        *,
        generator: torch.Generator | None = None,
    ) -> State:
        """``filter`` on the encoding of ``obs`` ({key: [B, ...]})."""
        return self.filter(state, prev_action, self.encode(obs), is_first, generator=generator)

    def pack(self, state: State) -> Tensor:
        """The state as flat numbers [B, S], for topics and recordings."""
        raise NotImplementedError

    def unpack(self, flat: Tensor) -> State:
        """Inverse of :meth:`pack`."""
        raise NotImplementedError

    # imagination ----------------------------------------------------------------------------

    def step(
        self, state: State, action: Tensor, *, generator: torch.Generator | None = None
    ) -> State:
        """State after ``action`` [B, A], without an observation."""
        raise NotImplementedError

    def readout(
        self,
        state: State,
        want: frozenset[str],
        *,
        generator: torch.Generator | None = None,
    ) -> dict[str, Tensor]:
        """Named quantities of a state, each [B] but "feat", which is [B, F].

        "reward" was received on arriving in the state, "cont" is the probability that the episode
        goes on from it, and "value" is the discounted sum of the rewards that come *after* it, so
        that sum_t gamma^t reward_t + gamma^H value_H counts every reward once.
        ``generator`` draws what is random in it, such as the critics of an ensemble that are asked.
        """
        raise NotImplementedError

    def rollout(
        self,
        state: State,
        actions: Tensor,
        *,
        want: frozenset[str],
        chunk: int | None = None,
        keep_last: bool = False,
        generator: torch.Generator | None = None,
    ) -> Rollout:
        """Imagine candidates ``actions`` [B, S, H, A] from ``state`` [B, ...].

        ``chunk`` bounds how many candidates are imagined at once (memory, not meaning: with a
        stochastic model the noise of each chunk is drawn in turn from ``generator``). "last" in
        ``want`` keeps features of the last step alone.
        """
        self._check_want(want)
        candidates = actions.shape[1]
        size = chunk or candidates
        parts = [
            self._rollout_chunk(state, actions[:, i : i + size], want, keep_last, generator)
            for i in range(0, candidates, size)
        ]
        return parts[0] if len(parts) == 1 else _join(parts, actions.shape[0])

    def _rollout_chunk(
        self,
        state: State,
        actions: Tensor,
        want: frozenset[str],
        keep_last: bool,
        generator: torch.Generator | None,
    ) -> Rollout:
        batch, candidates, horizon, _ = actions.shape
        flat = actions.flatten(0, 1)  # (B*S, H, A)
        state = expand(state, candidates)
        each: dict[str, list[Tensor]] = {name: [] for name in want - {"value", "last"}}
        for t in range(horizon):
            state = self.step(state, flat[:, t], generator=generator)
            readouts = self.readout(state, frozenset(each), generator=generator)
            for name, feature in readouts.items():
                if "last" in want and name not in SCALARS:
                    each[name].clear()
                each[name].append(feature)
        absent = sorted(name for name, values in each.items() if not values)
        if absent:
            raise ModelError(f"rollout: this model has no readout named {', '.join(absent)}.")
        out = {k: torch.stack(v, 1).unflatten(0, (batch, candidates)) for k, v in each.items()}
        value = None
        if "value" in want:
            value = self.readout(state, frozenset({"value"}), generator=generator)["value"]
        return Rollout(
            feat={k: v for k, v in out.items() if k not in SCALARS},
            reward=out.get("reward"),
            cont=out.get("cont"),
            disagreement=out.get("disagreement"),
            value=None if value is None else value.unflatten(0, (batch, candidates)),
            last=state if keep_last else None,
        )

    def _check_want(self, want: frozenset[str]) -> None:
        able = {
            "reward": self.spec.has_reward,
            "value": self.spec.has_value,
            "cont": self.spec.has_continue,
            "disagreement": self.spec.has_disagreement,
        }
        for name in sorted(want):
            if not able.get(name, True):
                has = sorted(k for k, v in able.items() if v) or ["nothing of the kind"]
                raise ModelError(
                    f"rollout: this model predicts no {name!r}; it predicts {', '.join(has)}."
                )

    # optional, declared in spec -------------------------------------------------------------

    def encode_goal(self, obs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What a goal observation looks like in ``Rollout.feat``: the same names, [B, ...]."""
        raise ModelError("encode_goal: this model takes no goal images (spec.has_goal is False).")

    def act(self, state: State, *, mode: bool, generator: torch.Generator | None = None) -> Tensor:
        """Action [B, A] of the actor: its mode, or a sample."""
        raise ModelError("act: this model has no actor (spec.has_actor is False); use a planner.")

    def decode(self, state: State) -> dict[str, Tensor]:
        """Reconstruction for inspection: {key: [B, 3, H, W] in 0..1} for each of the spec's
        ``image_keys``."""
        raise ModelError("decode: this model has no decoder (spec.has_decoder is False).")

    def modules_by_name(self) -> dict[str, nn.Module]:
        """The parts that are stored, versioned and swapped as files of their own."""
        raise NotImplementedError

    def parts_for(self, *verbs: str) -> tuple[str, ...]:
        """Names of the modules without whose weights these verbs do not work: any of VERBS."""
        return self._parts({verb: set(self.modules_by_name()) for verb in VERBS}, verbs)

    def _parts(self, needed: Mapping[str, set[str]], verbs: tuple[str, ...]) -> tuple[str, ...]:
        names = set().union(*(needed[verb] for verb in verbs))
        return tuple(name for name in self.modules_by_name() if name in names)


def _join(parts: list[Rollout], batch: int) -> Rollout:
    """Concatenate the rollouts of consecutive chunks of candidates."""

    def cat(pick: Callable[[Rollout], Tensor | None]) -> Tensor | None:
        leaves = [pick(p) for p in parts]
        return None if leaves[0] is None else torch.cat([x for x in leaves if x is not None], 1)

    last = None
    if parts[0].last is not None:
        last = tree_map(
            lambda *xs: torch.cat([x.unflatten(0, (batch, -1)) for x in xs], 1).flatten(0, 1),
            *[p.last for p in parts],
        )
    return Rollout(
        feat={k: torch.cat([p.feat[k] for p in parts], 1) for k in parts[0].feat},
        reward=cat(lambda p: p.reward),
        cont=cat(lambda p: p.cont),
        value=cat(lambda p: p.value),
        disagreement=cat(lambda p: p.disagreement),
        last=last,
        approximate=any(p.approximate for p in parts),
    )


def symmetric_box(size: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The action box [-1, 1]^size."""
    return (-1.0,) * size, (1.0,) * size
