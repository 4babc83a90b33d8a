"""The state of DINO-WM: the last frames with the actions between them, and how it changes."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class DinoState(NamedTuple):
    """The last frames, oldest first; row b has ``length[b]`` of them, zeros follow."""

    observed: Tensor  # [B, h, M, W], h = num_hist
    action: Tensor  # [B, h, A], taken at each frame; zeros at the newest
    length: Tensor  # [B] int64

    @property
    def newest(self) -> Tensor:
        """Index [B] of the newest frame; 0 before the first one."""
        return (self.length - 1).clamp_min(0)

    def newest_frame(self) -> Tensor:
        """The newest frame [B, M, W]."""
        rows = torch.arange(len(self.length), device=self.length.device)
        return self.observed[rows, self.newest]


def empty(
    batch: int, frames: int, observed: tuple[int, int], action_dim: int, like: Tensor
) -> DinoState:
    """No frame yet, with the dtype and on the device of ``like``."""
    return DinoState(
        like.new_zeros(batch, frames, *observed),
        like.new_zeros(batch, frames, action_dim),
        torch.zeros(batch, device=like.device, dtype=torch.int64),
    )


def with_action(state: DinoState, action: Tensor) -> DinoState:
    """``action`` [B, A] is taken at the newest frame."""
    newest = _slots(state) == state.length[:, None] - 1
    return state._replace(action=torch.where(newest[..., None], action[:, None], state.action))


def with_frame(state: DinoState, observed: Tensor, most: int) -> DinoState:
    """One more frame [B, M, W]; the oldest ones are dropped where there are more than ``most``."""
    slots = _slots(state)
    drop = (state.length - (most - 1)).clamp_min(0)[:, None]
    kept = state.length[:, None] - drop  # frames that stay, and the new one's slot
    source = (slots + drop).clamp_max(slots.shape[1] - 1)
    rows = torch.arange(len(slots), device=slots.device)[:, None]
    old, new = slots < kept, slots == kept
    moved, action = state.observed[rows, source], state.action[rows, source]
    moved = torch.where(old[..., None, None], moved, torch.zeros_like(moved))
    return DinoState(
        torch.where(new[..., None, None], observed[:, None].to(moved.dtype), moved),
        torch.where(old[..., None], action, torch.zeros_like(action)),
        kept[:, 0] + 1,
    )


def of_frames(frames: list[Tensor], actions: list[Tensor], size: int) -> DinoState:
    """The state of ``size`` frames after a rollout: the newest of ``frames`` [B, M, W], and of the
    ``actions`` [B, A] taken at each but the last."""
    recent = frames[-size:]
    between = actions[-(len(recent) - 1) :] if len(recent) > 1 else []
    blank, idle = torch.zeros_like(recent[0]), torch.zeros_like(actions[-1])
    observed = [*recent, *[blank] * (size - len(recent))]
    action = [*between, *[idle] * (size - len(between))]
    length = torch.full((len(blank),), len(recent), device=blank.device)
    return DinoState(torch.stack(observed, 1), torch.stack(action, 1), length)


def pack(state: DinoState) -> Tensor:
    """The state as flat numbers [B, h M W + h A + 1]."""
    flat = [state.observed.flatten(1), state.action.flatten(1), state.length[:, None]]
    return torch.cat([x.float() for x in flat], 1)


def unpack(flat: Tensor, frames: int, observed: tuple[int, int], action_dim: int) -> DinoState:
    """Inverse of :func:`pack`."""
    sizes = [frames * observed[0] * observed[1], frames * action_dim, 1]
    tokens, action, length = flat.split(sizes, 1)
    return DinoState(
        tokens.unflatten(1, (frames, *observed)),
        action.unflatten(1, (frames, -1)),
        length[:, 0].round().long(),
    )


def _slots(state: DinoState) -> Tensor:
    batch, frames = state.action.shape[:2]
    return torch.arange(frames, device=state.length.device).expand(batch, -1)
