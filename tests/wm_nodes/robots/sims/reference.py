"""Three episodes of a simulator in numbers that do not depend on the machine."""

from __future__ import annotations

import numpy as np

from wm_nodes.robots.robot import Robot


def assert_reference(robot: Robot, episodes: list[tuple[float, ...]]) -> None:
    """Compare three episodes with (return, stamp [ms], proprioception at the end ...) of each.

    The first and the third are of the robot's own stream, the second has seed 7; actions are
    random, some out of bounds. Images are left out: renderers differ.
    """
    random, results = np.random.default_rng(1), []
    for seed in (None, 7, None):
        observation, total = robot.reset(seed), 0.0
        while not observation.is_last:
            observation = robot.act(random.uniform(-2, 2, len(robot.spec.action)))
            total += observation.reward
        results.append((total, observation.stamp_ns / 1e6, *observation.proprio))
    np.testing.assert_allclose(results, episodes, rtol=1e-4, atol=1e-3)
