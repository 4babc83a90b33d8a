"""Base of the nodes that compute with a model: weights, device, seed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, TypeVar

import torch

from wm_models.errors import ModelError
from wm_models.weights.manifest import WeightsError
from wm_nodes.agent.device import pick_device
from wm_nodes.agent.weights import WeightCache, Weights, find_weights
from wm_nodes.errors import user_errors
from wm_nodes.records import Announcement
from wm_nodes.ros import messages, topics
from wm_nodes.ros.node import ManagedNode, NodeParams
from wm_nodes.ros.parameters import param

POLL_S = 0.1


@dataclass(frozen=True)
class ModelNodeParams(NodeParams):
    mode: str = param(
        "lockstep",
        "lockstep: use every message; realtime: use the newest one.",
        choices=topics.MODES,
    )
    model: str = param("", "Model preset that the weights must belong to; empty: any.")
    weights: str = param(
        "", "Folder of the first weights; empty: the newest of the run, if there are any."
    )
    run: str = param("", "Folder of the run, whose weights/ is used if `weights` is empty.")
    seed: int = param(0, "Seed of all random numbers.", low=0, high=2**31 - 1)
    device: str = param(
        "auto", "Torch device: cpu, cuda, cuda:1, or auto (the GPU if there is one)."
    )
    threads: int = param(1, "Number of CPU threads of torch.", low=1, high=256)


P = TypeVar("P", bound=ModelNodeParams)


class ModelNode(ManagedNode[P]):
    """A node that computes with a model.

    Weights are loaded from parameter `weights` or the run's folder, then as topic `weights`
    announces new versions.
    """

    NEEDS: ClassVar[tuple[str, ...]]  # uses of the model: a subset of VERBS

    def configure(self) -> None:
        p = self.params
        torch.set_num_threads(p.threads)
        with user_errors(WeightsError, ModelError):
            self.device = pick_device(p.device)
            self.weight_cache = WeightCache(self.needs(), self.device, p.model, self.drop)
            folder = find_weights(p.weights, p.run)
            if folder is not None:
                self._on_new(self.weight_cache.open(folder))
        self.listen(topics.ANNOUNCEMENTS, messages.announcement_from_msg, self._on_news, idle=True)
        self.create_timer(POLL_S, self.poll)

    def needs(self) -> tuple[str, ...]:
        """Return the uses of the model (wm_models.interface.world_model.VERBS)."""
        return self.NEEDS

    def activate(self) -> None:
        self.diagnostics.ready = True

    def cleanup(self) -> None:
        if hasattr(self, "weight_cache"):
            self.weight_cache.close()

    def poll(self) -> None:
        """Use weights whose loading has finished."""
        if self.weight_cache.poll() and self.weight_cache.newest is not None:
            self._on_new(self.weight_cache.newest)

    def _on_news(self, news: Announcement) -> None:
        self.weight_cache.announce(news)

    def _on_new(self, newest: Weights) -> None:
        self.diagnostics.weights = newest.version
        self.get_logger().info(f"weights {newest.preset}@{newest.version}")
