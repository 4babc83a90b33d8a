"""A node that counts messages on a topic for some seconds: other_host.py TOPIC SECONDS."""

from __future__ import annotations

import sys
import time

import rclpy
from std_msgs.msg import String


def main() -> None:
    rclpy.init()
    node = rclpy.create_node("other_host")
    received: list[str] = []
    node.create_subscription(String, sys.argv[1], lambda msg: received.append(msg.data), 10)
    end = time.monotonic() + float(sys.argv[2])
    while time.monotonic() < end and not received:
        rclpy.spin_once(node, timeout_sec=0.1)
    print(len(received), *sorted(set(node.get_node_names()) - {"other_host"}), flush=True)


if __name__ == "__main__":
    main()
