"""A process that publishes a plan of POINTS points on the plans' topic again and again."""

from __future__ import annotations

import time

import rclpy
from rclpy.node import Node
from rclpy.serialization import serialize_message
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from wm_nodes.ros import topics

POINTS = 200_000  # 12 MB
PERIOD_S = 0.02  # between two plans
STARTED = "publishing"  # the line that the process writes once it does


def main() -> None:
    """Publish until the process is killed."""
    rclpy.init()
    plans = topics.PLAN.always(Node("long_plans", namespace=topics.NAMESPACE))
    point = JointTrajectoryPoint(positions=[0.0, 0.1, 0.0])
    plan = JointTrajectory(joint_names=["x", "y", "z"], points=[point] * POINTS)
    data = serialize_message(plan)
    print(STARTED, flush=True)
    while True:
        plans.publish(data)
        time.sleep(PERIOD_S)


if __name__ == "__main__":
    main()
