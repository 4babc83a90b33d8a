"""Records all plans and goal images: FOLDER/plans.jsonl and FOLDER/goal-N.png."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from wm_nodes.records import Image, Plan
from wm_nodes.ros import messages, spin, topics
from wm_nodes.ros.node import ManagedNode, NodeParams
from wm_nodes.ros.parameters import param


@dataclass(frozen=True)
class PlanRecorderParams(NodeParams):
    folder: str = param(
        "plans", "Folder to write plans.jsonl and goal images to; created if it is missing."
    )


class PlanRecorderNode(ManagedNode[PlanRecorderParams]):
    """Only subscribes; no other node depends on it."""

    NAME = "plan_recorder"

    def configure(self) -> None:
        self._folder = Path(self.params.folder)
        self._folder.mkdir(parents=True, exist_ok=True)
        self._file = (self._folder / "plans.jsonl").open("a")
        self._goals = 0
        self._goal: Image | None = None
        self.listen(topics.PLAN, messages.plan_from_msg, self._on_plan)
        for qos in (topics.GOAL.qos, topics.UNLATCHED):
            self.listen(topics.GOAL, messages.image_from_msg, self._on_goal, qos, idle=True)

    def activate(self) -> None:
        self.diagnostics.ready = True

    def cleanup(self) -> None:
        if hasattr(self, "_file"):
            self._file.close()

    def _on_plan(self, plan: Plan) -> None:
        now_ns = self.get_clock().now().nanoseconds
        self._write(
            stamp_ns=plan.stamp_ns,
            late_s=(now_ns - plan.stamp_ns) / 1e9,
            origin=str(plan.origin),
            goal=self._goals,
            actions=np.round(plan.actions, 5).tolist(),
        )

    def _on_goal(self, stamp_ns: int, image: Image) -> None:
        if self._goal is not None and np.array_equal(image, self._goal):
            return  # a latched image is received twice
        self._goal, self._goals = image.copy(), self._goals + 1
        cv2.imwrite(
            str(self._folder / f"goal-{self._goals}.png"), cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
        )

    def _write(self, **row: object) -> None:
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()


def main() -> None:
    spin.main(PlanRecorderNode)


if __name__ == "__main__":
    main()
