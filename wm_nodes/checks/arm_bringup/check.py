"""Bring-up check of an arm: topics, rates, clocks, joint order and sign, cameras, kinematics.

Images are handled by the check's own node; joint states arrive in the thread of the driver.
"""

from __future__ import annotations

import rclpy
from rclpy.executors import SingleThreadedExecutor

from wm_nodes.checks.arm_bringup.connections import (
    check_connections,
    check_driver_services,
    check_gripper,
    check_permissions,
)
from wm_nodes.checks.arm_bringup.motion import MotionCheck
from wm_nodes.checks.arm_bringup.reception import receive
from wm_nodes.checks.arm_bringup.report import Report
from wm_nodes.checks.arm_bringup.sources import SourceChecks
from wm_nodes.robots.arm.config.arm_config import ArmConfig
from wm_nodes.ros.arm.driver import RosDriver
from wm_nodes.ros.node import ManagedNode, NodeParams


class _CheckNode(ManagedNode[NodeParams]):
    NAME = "arm_check"


class ArmCheck:
    """Checks one arm. ns: namespace of the check's own node, as the robot node would have it.

    seconds: time to receive messages. yes: move joints without a question to the operator.
    """

    def __init__(self, config: ArmConfig, ns: str, seconds: float, yes: bool) -> None:
        self._config, self._ns, self._seconds, self._yes = config, ns, seconds, yes
        self._report = Report()

    def run(self, move: bool) -> int:
        """Check, and move the arm if `move`; return 1 if there is a problem."""
        context = rclpy.Context()
        rclpy.init(context=context)
        node = _CheckNode(context=context, namespace=self._ns)
        node.active = True
        executor = SingleThreadedExecutor(context=context)
        executor.add_node(node)
        driver: RosDriver | None = None
        try:
            driver = RosDriver(node, self._config)
            self._check(node, driver, executor, move)
        finally:
            if driver is not None:
                driver.close()
            executor.shutdown(timeout_sec=0.5)
            node.destroy_node()
            rclpy.try_shutdown(context=context)
        problems = self._report.problems
        print(f"{problems} problems found" if problems else "no problem found")
        return 1 if problems else 0

    def _check(
        self, node: _CheckNode, driver: RosDriver, executor: SingleThreadedExecutor, move: bool
    ) -> None:
        config, report = self._config, self._report

        def spin() -> None:
            executor.spin_once(timeout_sec=0.002)

        sources = SourceChecks(config, driver, node, report)
        received = receive(driver, tuple(config.cameras), self._seconds, spin)
        sources.joints_and_cameras(received)
        check_gripper(config, driver, report)
        sources.force_torque(received.forces)
        check_driver_services(config, node, report)
        check_connections(driver, report)
        check_permissions(report)
        reading = driver.joints()
        if reading is not None:
            sources.place(reading)
            if move:
                MotionCheck(config, driver, report, spin=spin, confirm=self._confirm).run()
        for reason, count in node.diagnostics.drops.items():
            report.check(False, f"{count} messages were dropped: {reason}", "see docs/topics.md")

    def _confirm(self, question: str) -> bool:
        if self._yes:
            return True
        try:
            return input(f"{question} [y/N] ").strip().lower() in ("y", "yes")
        except EOFError:
            return False
