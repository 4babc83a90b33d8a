"""A camera driver as a separate process: image_source.py TOPIC RELIABILITY COUNT HZ BYTES.

It prints "ready", waits for a line and a subscription, and publishes; each image's height is its
number. It ends when its standard input is closed.
"""

from __future__ import annotations

import sys
import time
from array import array

import rclpy
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image


def main() -> None:
    topic, reliability, count, hz, size = sys.argv[1:]
    rclpy.init()
    node = rclpy.create_node("image_source")
    qos = QoSProfile(depth=int(count), reliability=ReliabilityPolicy[reliability])
    publisher = node.create_publisher(Image, topic, qos)
    print("ready", flush=True)
    sys.stdin.readline()
    while not publisher.get_subscription_count():
        time.sleep(0.01)
    msg = Image(data=array("B", bytes(int(size))))
    for number in range(1, int(count) + 1):
        msg.height = number
        publisher.publish(msg)
        time.sleep(1.0 / float(hz))
    print("done", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
