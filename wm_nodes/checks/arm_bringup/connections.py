"""Checks of an arm's controllers, gripper, driver services and permissions."""

from __future__ import annotations

import resource

from rclpy.node import Node

from wm_nodes.checks.arm_bringup.report import Report
from wm_nodes.errors import UserError
from wm_nodes.robots.arm.config.arm_config import ArmConfig
from wm_nodes.robots.arm.driver import Driver
from wm_nodes.robots.arm.sim.tasks import TASKS
from wm_nodes.ros.driver_services import DRIVER_TASKS, loaded

LOCKED = 2**30  # bytes of memory that the robot node needs at most
PRIORITY = 20  # real-time priority of the control thread
FAULTS = {  # faults of the driver, and the line of the report without them
    "joint_sources": "each joint has one publisher",
    "controller": "a controller subscribes to the commands",
    "controller_settings": "the controller continues from its last command with each message",
    "commander": "no other node commands the arm",
    "camera_clock": "the stamps of images agree with this computer's clock",
    "wrench_sources": "",  # reported by `SourceChecks`
}


def check_gripper(config: ArmConfig, driver: Driver, report: Report) -> None:
    """Report whether a controller takes the gripper's commands, and in which tasks it rests."""
    gripper = config.gripper
    if gripper is None:
        return
    if not gripper.topic:
        report.note(True, f"gripper: {gripper.joint} is measured only (no `topic:`)", "")
        return
    wrong = driver.reports().get("gripper", "")
    what = f"gripper: {gripper.interface} on {gripper.topic}, action {gripper.action}: "
    report.check(not wrong, what + "a controller takes its commands", "", wrong=what + wrong)
    for task in config.action.gripper_rests:
        known = f"{', '.join(TASKS)} are known here; another is one of your own"
        report.note(task in TASKS, f"gripper: it rests in the task {task}", known)


def check_driver_services(config: ArmConfig, node: Node, report: Report) -> None:
    """Report each service that `driver:` calls: its type, its request, and whether it runs."""
    names = dict(node.get_service_names_and_types())
    for work in DRIVER_TASKS:
        try:
            calls = loaded(config.driver, work)
        except UserError as error:
            report.check(False, f"driver.{work}: {error}", "")
            continue
        for call, _, _ in calls:
            name = node.resolve_service_name(call.service)
            report.check(
                call.type in names.get(name, ()),
                f"driver.{work}: {name} ({call.type})",
                "start the driver, or correct the name",
                wrong=f"driver.{work}: no service {name} of type {call.type}"
                + (f", it is {names[name][0]}" if name in names else ""),
            )


def check_connections(driver: Driver, report: Report) -> None:
    """Report every fault of the driver's topics, and the topics without a fault."""
    faults = driver.faults()
    for name, right in FAULTS.items():
        if right or name in faults:
            report.check(name not in faults, right, "", wrong=faults.get(name, ""))
    for name in faults.keys() - FAULTS.keys():
        report.check(False, name, "", wrong=faults[name])


def check_permissions(report: Report) -> None:
    """Report whether the control thread can have real-time priority, and lock its memory."""
    for what, limit, word, needed, line in (
        ("real-time priority", resource.RLIMIT_RTPRIO, "rtprio", PRIORITY, "98"),
        ("locked memory", resource.RLIMIT_MEMLOCK, "memlock", LOCKED, "unlimited"),
    ):
        allowed, _ = resource.getrlimit(limit)
        unlimited = allowed == resource.RLIM_INFINITY
        report.note(
            unlimited or allowed >= needed,
            f"{what}: the limit is {'none' if unlimited else allowed}",
            f"for an even control period add `@realtime - {word} {line}` to "
            "/etc/security/limits.conf, add your user to the group `realtime`, log in again",
        )
