"""The contract between world models, planners and learners.

Time runs one way everywhere: o_t is observed, a_t is applied, which brings r_t and o_{t+1}.
``observe(s_{t-1}, a_{t-1}, o_t)`` gives s_t; ``step(s_t, a_t)`` gives s_{t+1}.

A *State* is an opaque pytree of tensors with a leading batch dimension. Planners only ever call
:func:`expand`, :func:`index`, :func:`detach` and :func:`to` on it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

if TYPE_CHECKING:
    from wm_models.body import Body

VERBS = ("encode", "filter", "act", "plan", "decode")  # what a node may need a model for
SCALARS = frozenset({"reward", "value", "cont", "disagreement"})  # of a rollout; not features
State = Any  # a pytree of tensors [B, ...]


class ModelError(ValueError):
    """A model was asked for something it cannot give, or given something it cannot take."""


class PlanRefused(ModelError):
    """There is no plan: nothing that was imagined has a finite cost. Do not move; say why."""


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
    max_horizon: int | None = None

    @property
    def action_dim(self) -> int:
        """A, the size of one model action."""
        return len(self.action_low)

    @property
    def image_size(self) -> tuple[int, int] | None:
        """(H, W) of the observation's "image"; None for a model that sees none."""
        shape = self.obs_keys.get("image")
        return None if shape is None else (shape[1], shape[2])

    def bounds(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """The action box as two [A] tensors on the device and in the dtype of ``like``."""
        return like.new_tensor(self.action_low), like.new_tensor(self.action_high)


@dataclass
class Rollout:
    """What imagining S candidates of H actions each gave; fields not asked for are None."""

    feat: dict[str, Tensor] = field(
        default_factory=dict
    )  # name -> [B, S, H, ...], after each action; [B, S, 1, ...] where "last" was wanted
    reward: Tensor | None = None  # [B, S, H], brought by each action
    cont: Tensor | None = None  # [B, S, H], probability of not having terminated
    value: Tensor | None = None  # [B, S], of the last state, in the scale of ``reward``
    disagreement: Tensor | None = None  # [B, S, H]
    last: State | None = None  # state after the last action, batch B * S
    approximate: bool = False  # the model took a short cut that changes the result


def expand(state: State, count: int) -> State:
    """Repeat each row ``count`` times: leaves [B, ...] -> [B * count, ...], copies side by side.

    Of a single row nothing is copied: the leaves are views, which must not be written to.
    """
    return tree_map(partial(_repeated, count=count), state)


def _repeated(x: Tensor, count: int) -> Tensor:
    if x.shape[0] == 1:
        return x.expand(count, *x.shape[1:])
    return x.repeat_interleave(count, 0)


def index(state: State, rows: Any) -> State:
    """Select batch rows of every leaf."""
    return tree_map(lambda x: x[rows], state)


def detach(state: State) -> State:
    """The same state, cut off from the graph that made it."""
    return tree_map(lambda x: x.detach(), state)


def to(state: State, device: torch.device | str) -> State:
    """The same state on another device."""
    return tree_map(lambda x: x.to(device), state)


def leading(state: State) -> Tensor:
    """Some leaf [B, ...] of a state, for its batch size, dtype and device."""
    leaves = [x for x in tree_leaves(state) if isinstance(x, Tensor)]
    if not leaves:
        raise ModelError("state: expected a pytree of tensors [B, ...], got one without tensors.")
    return next((x for x in leaves if x.is_floating_point()), leaves[0])


def stack(states: list[State], dim: int) -> State:
    """Stack a list of equal states along a new dimension."""
    return tree_map(lambda *leaves: torch.stack(leaves, dim), *states)


def with_raw(tokens: Tensor, raw: Tensor) -> Tensor:
    """Features [B, N + k, D] of tokens [B, N, D] and measured numbers ``raw`` [B, P] as they are:
    the k = ceil(P / D) last tokens hold them, padded with zeros. For models whose filter wants a
    measurement itself, such as a pose that is integrated outside the network."""
    width = tokens.shape[-1]
    padded = F.pad(raw.to(tokens), (0, -raw.shape[-1] % width))
    return torch.cat([tokens, padded.unflatten(-1, (-1, width))], -2)


def split_raw(features: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Tokens [B, N, D] and the ``size`` measured numbers [B, P] of :func:`with_raw`."""
    count = -(-size // features.shape[-1])
    tokens, raw = features[..., :-count, :], features[..., -count:, :]
    return tokens, raw.flatten(-2)[..., :size]


class WorldModel(nn.Module):
    """Filter, imagine, read out. Subclasses set ``spec`` and implement the abstract verbs."""

    spec: ModelSpec
    body: Body | None = None  # the robot it is for; None: robot and model actions are the same

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
            for name, found in self.readout(state, frozenset(each), generator=generator).items():
                if "last" in want and name not in SCALARS:
                    each[name].clear()
                each[name].append(found)
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
        raise ModelError("encode_goal: this model takes no goal pictures (spec.has_goal is False).")

    def act(self, state: State, *, mode: bool, generator: torch.Generator | None = None) -> Tensor:
        """Action [B, A] of the actor: its mode, or a sample."""
        raise ModelError("act: this model has no actor (spec.has_actor is False); use a planner.")

    def decode(self, state: State) -> dict[str, Tensor]:
        """Pictures for people: {"image": [B, 3, H, W] in 0..1}."""
        raise ModelError("decode: this model has no decoder (spec.has_decoder is False).")

    def modules_by_name(self) -> dict[str, nn.Module]:
        """The parts that are stored, versioned and swapped as files of their own."""
        raise NotImplementedError

    def parts_for(self, *verbs: str) -> tuple[str, ...]:
        """Names of the modules without whose weights these verbs do not work: any of VERBS."""
        return self._parts({verb: set(self.modules_by_name()) for verb in VERBS}, verbs)

    def _parts(self, needed: Mapping[str, set[str]], verbs: tuple[str, ...]) -> tuple[str, ...]:
        wanted = set().union(*(needed[verb] for verb in verbs))
        return tuple(name for name in self.modules_by_name() if name in wanted)


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


class Cost(Protocol):
    """Scores candidates; lower is better. ``needs`` names what a rollout must hold for it.

    "last" among them says that it looks at the features of the last step only. A cost may also
    carry ``optional``, names that it uses where the model has them, and ``goal``,
    True when it cannot do without a goal.
    """

    @property
    def needs(self) -> frozenset[str]: ...

    def __call__(
        self, rollout: Rollout, goal: Mapping[str, Tensor] | None, actions: Tensor
    ) -> Tensor:
        """Cost [B, S] of ``rollout`` under ``actions`` [B, S, H, A]."""


@dataclass(frozen=True)
class PlanState:
    """Where the next search starts: the mean [B, H, A], and the goal that it was found for. How
    wide a search begins is the planner's setting: what a search ends with is too narrow to find
    anything else."""

    mean: Tensor
    goal: Mapping[str, Tensor] | None = None  # {name: [B, ...]}; None: no goal is known

    def shifted(self, steps: int) -> PlanState:
        """The plan as seen ``steps`` actions later: moved forward, the end filled with zeros."""
        tail = torch.zeros_like(self.mean[:, : min(steps, self.mean.shape[1])])
        return PlanState(torch.cat([self.mean[:, steps:], tail], 1), self.goal)

    def serves(self, goal: Mapping[str, Tensor] | None) -> Tensor:
        """Which rows [B] bool may start a search for ``goal``: those of the same goal; all, where
        this one's goal is not known."""
        same = torch.ones(len(self.mean), dtype=torch.bool, device=self.mean.device)
        if self.goal is None or goal is self.goal:
            return same
        if goal is None or goal.keys() != self.goal.keys():
            return ~same
        for name, old in self.goal.items():
            if old.shape != goal[name].shape:
                return ~same
            same &= (old == goal[name]).flatten(1).all(1).to(same.device)
        return same


class Planner(Protocol):
    """A search over action sequences; a function of its arguments (equal generator, equal plan)."""

    horizon: int

    def plan(
        self,
        model: WorldModel,
        state: State,
        cost: Cost,
        goal: Mapping[str, Tensor] | None = None,
        warm: PlanState | None = None,
        budget_s: float | None = None,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, PlanState, dict[str, Tensor]]:
        """Actions [B, H, A] within the model's box, the warm start for the next call, and facts
        about the search. When ``budget_s`` seconds are over, the best plan so far is returned."""


@dataclass(frozen=True)
class BatchSpec:
    """The windows a learner wants: ``batch`` of them, of ``length`` consecutive log rows each.

    Rows t and t + 1 of a window may belong to two episodes: ``is_first`` of row t + 1 says so. A
    learner that needs the action and the reward that led to every row it learns from asks for one
    row more, in front (:func:`arrival`, :func:`without_context`).
    """

    batch: int
    length: int

    @property
    def frames(self) -> int:
        return self.batch * self.length


class Learner(Protocol):
    """Owns the optimisers and everything else that training changes besides the weights.

    ``fields`` names what a batch must hold of each log row: "image", "proprio", "action" (in the
    model's units per robot step), "commanded", "reward", the flags, and "demo", rows whose
    commanded action is worth imitating.
    """

    updates: int

    @property
    def batch_specs(self) -> Mapping[str, BatchSpec]: ...

    @property
    def fields(self) -> frozenset[str]: ...

    @property
    def initial_updates(self) -> int:
        """First updates, which do not wait for new experience and give no usable weights yet."""

    @property
    def phase(self) -> str:
        """What is being trained now, in a word."""

    def begin_with(self, step: int) -> None:
        """Take note that the model has got weights which were trained for ``step`` updates."""

    def update(self, batches: Mapping[str, Mapping[str, Tensor]]) -> dict[str, float]:
        """One optimiser step of everything the model owns, on one batch of log rows per name in
        ``batch_specs``; returns named metrics."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


@dataclass(frozen=True)
class EpisodeReturn:
    """A whole episode that has been recorded."""

    total: float  # sum of its rewards
    length: int  # rows
    weights: int  # version that chose its actions; -1: none, or several


@runtime_checkable
class LearnsFromReturns(Protocol):
    """A learner that also wants the returns of episodes, as evolution strategies do (World Models:
    ask for a controller, tell its return)."""

    def episodes_ended(self, episodes: Sequence[EpisodeReturn]) -> None:
        """Take in finished episodes, oldest first. Each is given once, before the next update."""


def arrival(batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Shift log rows (B, T) into the Dreamer convention: the one place where this is done.

    Log row t holds o_t, then the action executed from it and the reward that this brought. The
    result has in row t the action that *led to* o_t and the reward received *on arriving* there:
    zeros at an episode's first row, also where another episode ends in the row before. In row 0
    of a window that starts inside an episode both are unknown; ``reward_known`` is False there,
    and ``is_first`` is set so that a filter starts anew. ``is_terminal`` says that o_t is where
    the task ended for good: the row before, or the episode's last row itself, has it in the log.
    ``next_action`` keeps what was chosen at o_t: ``commanded`` if it is there, else ``action``.
    """
    first = batch["is_first"].bool()

    def shifted(x: Tensor) -> Tensor:
        moved = torch.cat([torch.zeros_like(x[:, :1]), x[:, :-1]], 1)
        return moved * (~first).reshape(first.shape + (1,) * (x.ndim - 2)).to(x.dtype)

    start = torch.zeros_like(first)
    start[:, 0] = True
    out = dict(batch)
    out["next_action"] = batch.get("commanded", batch["action"])
    out["action"] = shifted(batch["action"])
    out["reward"] = shifted(batch["reward"])
    out["is_terminal"] = shifted(batch["is_terminal"].float()).bool()
    if "is_last" in batch:
        out["is_terminal"] |= batch["is_terminal"].bool() & batch["is_last"].bool()
    out["reward_known"] = ~start | first
    out["is_first"] = first | start
    return out


def without_context(rows: Mapping[str, Tensor], keep_resets: bool) -> dict[str, Tensor]:
    """Windows of :func:`arrival`, one row shorter: (B, T) -> (B, T - 1), every reward known.

    The first row of a window goes, as nothing is known of what led to it. Where it begins an
    episode it is a reset frame, of which all is known: with ``keep_resets`` the last row goes
    instead. This is for windows that lie inside episodes, in which reset frames come first or
    never; where every row of a log begins windows equally often, every row is second so too.
    """
    begin = 1 - (rows["reward_known"][:, :1] & keep_resets).long()
    kept = begin + torch.arange(rows["reward_known"].shape[1] - 1, device=begin.device)
    window = torch.arange(len(begin), device=begin.device)[:, None]
    out = {name: value[window, kept] for name, value in rows.items()}
    out["is_first"][:, 0] = True
    return out


def symmetric_box(size: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The action box [-1, 1]^size."""
    return (-1.0,) * size, (1.0,) * size


def check_finite(name: str, value: float) -> float:
    """Pass a metric through; a non-finite one is an error of training, not a number to log."""
    if not math.isfinite(value):
        raise FloatingPointError(
            f"{name} became {value}: training diverged; go back to the last good weights."
        )
    return value
