"""Meta-World's scripted policies behind the Policy protocol."""

from __future__ import annotations

import warnings

import numpy as np

from wm_nodes.robots.robot import Observation, Vector
from wm_nodes.robots.sims.metaworld import MetaWorld


class Expert:
    """Meta-World's scripted policy of the robot's task, which reads positions and the goal."""

    def __init__(self, robot: MetaWorld) -> None:
        self._robot = robot
        self._script = _script(robot.script_task)

    def begin(self) -> None:
        self._policy = self._script()  # a few scripts have state

    def act(self, observation: Observation) -> Vector:
        with warnings.catch_warnings():  # it warns at each action that the bounds will clip
            warnings.simplefilter("ignore")
            action = self._policy.get_action(self._robot.privileged_state)
        return np.asarray(action, np.float32)


def _script(task: str) -> type:
    from metaworld.policies import ENV_POLICY_MAP

    return ENV_POLICY_MAP[task]
