"""The robot's action space in a node that plans, from topic spec."""

from __future__ import annotations

from typing import Any

from wm_datasets.spec import VectorSpec
from wm_nodes.control.plans import PlanMaker
from wm_nodes.records import Step
from wm_nodes.ros import messages, topics
from wm_nodes.ros.node import ManagedNode


class RobotSpace:
    """Gives each spec to `maker`, and knows the space that random actions are drawn from.

    A robot announces its spec before its steps, yet it may be received after the first of them.
    Actions that were drawn before from -1..1 would be valid ones of the robot in the end, since it
    takes the nearest, but others than in the next run of the same seed.
    """

    def __init__(self, node: ManagedNode[Any], maker: PlanMaker, place: str = "") -> None:
        """place: namespace of the robot's topics, below the node's own."""
        self._node, self._maker, self._spec = node, maker, topics.SPEC.below(place)
        self._drain = node.listen(self._spec, messages.spec_from_msg, maker.learn, idle=True)

    def of(self, step: Step) -> VectorSpec | None:
        """Return the space of the robot of this step, -1 to 1 where no node publishes a spec. None:
        a spec is on its way; the robot repeats an unanswered observation."""
        if not self._maker.knows_robot:
            self._drain()
        if not self._maker.knows_robot and self._node.count_publishers(self._spec.name):
            return None
        return self._maker.space(step)
