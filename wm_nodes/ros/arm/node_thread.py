"""A ROS node that spins in a thread of its own, so that its callbacks wait for no other node's."""

from __future__ import annotations

import threading
from collections.abc import Callable

from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node

WAKE_S = 0.1  # longest wait of the executor, until it looks whether to end


class NodeThread:
    """Owns a node, its executor and its thread. `start` spins, `stop` ends, `destroy` frees.

    parent: its context and namespace are used. on_failure: called in the thread with the exception
    of a callback, after which the thread ends.
    """

    def __init__(self, name: str, parent: Node, on_failure: Callable[[Exception], None]) -> None:
        self.node = Node(
            name,
            context=parent.context,
            namespace=parent.get_namespace(),
            use_global_arguments=False,  # a remapped node name is the parent's
            enable_rosout=False,
            start_parameter_services=False,
        )
        self._on_failure = on_failure
        self._ending = False
        self._executor = SingleThreadedExecutor(context=parent.context)
        self._executor.add_node(self.node)
        self._thread = threading.Thread(target=self._spin, name="arm_driver", daemon=True)

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End the thread, if it was started, and wait for it."""
        self._ending = True
        if self.alive:
            self._executor.wake()
            self._thread.join()

    def destroy(self) -> None:
        """Free executor and node, after `stop`."""
        self._executor.shutdown()
        self.node.destroy_node()

    def _spin(self) -> None:
        try:
            while not self._ending and self.node.context.ok():
                self._executor.spin_once(timeout_sec=WAKE_S)
        except ExternalShutdownException:
            return
        except Exception as error:
            if not self._ending and self.node.context.ok():
                self._on_failure(error)
