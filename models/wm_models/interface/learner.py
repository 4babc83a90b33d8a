"""The contract of learners: what they ask of a log, and what one update does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from wm_models.interface.checked import Checked


@dataclass(frozen=True)
class BatchSpec:
    """The windows a learner wants: ``batch`` of them, of ``length`` consecutive log rows each.

    Rows t and t + 1 of a window may belong to two episodes: ``is_first`` of row t + 1 says so. A
    learner that needs the action and the reward that led to every row it learns from asks for one
    row more, in front (:func:`arrival`, :func:`without_context`).
    """

    batch: int  # windows
    length: int  # rows of a window, the one in front included

    def __post_init__(self) -> None:
        Checked(self).whole("batch", "length", high=1_000_000)

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
    and ``is_first`` is set so that a filter is reset. ``is_terminal`` says that o_t is where
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
