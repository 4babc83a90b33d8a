"""What encoder, world_model, policy and agent have in common: weights, device, seed."""

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
        "lockstep", "lockstep: take every message; realtime: the newest.", choices=topics.MODES
    )
    model: str = param("", "Model preset that weights must be of; empty: any.")
    weights: str = param("", "Folder of weights to begin with; empty: the run's newest, if any.")
    run: str = param("", "Folder of the run, whose weights/ is looked at when none are given.")
    seed: int = param(0, "Seed of everything random.", low=0, high=2**31 - 1)
    device: str = param("auto", "cpu, cuda, cuda:1, or auto: the GPU where there is one.")
    threads: int = param(1, "Threads of torch.", low=1, high=256)


P = TypeVar("P", bound=ModelNodeParams)


class ModelNode(ManagedNode[P]):
    """A node that computes with a model. Weights come by parameter, run folder, or `weights`."""

    NEEDS: ClassVar[tuple[str, ...]]  # what it needs the model for: some of VERBS

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
        """What this node needs the model for (wm_models.interface.world_model.VERBS)."""
        return self.NEEDS

    def activate(self) -> None:
        self.diagnostics.ready = True

    def cleanup(self) -> None:
        if hasattr(self, "weight_cache"):
            self.weight_cache.close()

    def poll(self) -> None:
        """Take over weights that have been loaded."""
        if self.weight_cache.poll() and self.weight_cache.newest is not None:
            self._on_new(self.weight_cache.newest)

    def _on_news(self, news: Announcement) -> None:
        self.weight_cache.announce(news)

    def _on_new(self, newest: Weights) -> None:
        self.diagnostics.weights = newest.version
        self.get_logger().info(f"weights {newest.preset}@{newest.version}")
