"""Every fault of the matrix: how it is injected and removed, and what must hold meanwhile."""

from __future__ import annotations

import math
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from wm_nodes.checks.faults.bad_messages import bad_plan
from wm_nodes.checks.faults.plant import busy, long_plans
from wm_nodes.checks.faults.rig import START_S, Rig, until
from wm_nodes.namespaces import beside
from wm_nodes.nodes.arm_sim import ArmSimParams
from wm_nodes.robots.arm.sim.faults import JOINT_NOISE_RAD

REST_S = 2.5  # observation of an arm that must rest; the auditor allows 1.5 s to come to rest
REACTION_S = 0.05  # from an e-stop's call until it takes effect
LOUD_RAD = 0.005  # injected noise of joint positions
EXIT_S = 30.0  # for a second robot node to refuse
JOINTS_HZ = ArmSimParams().rate_hz
CALLS: tuple[tuple[str, bool | None], ...] = (
    ("pause", True),
    ("pause", False),
    ("resume", None),
    ("reset", None),
    ("go_home", None),
    ("estop", True),
    ("estop", False),
)


@dataclass(frozen=True)
class Fault:
    """One kind of injection.

    inject: executes it from start to end and returns the problem, or "". stands: the arm must stop
    meanwhile. rest: it must not move before the operator acts. unaided: it must move again without
    an operator.
    """

    inject: Callable[[Rig], str]
    stands: bool = False
    rest: bool = False
    unaided: bool = False


# The driver's faults ----------------------------------------------------------------------------


def _switched(rig: Rig, name: str, value: Any, low_s: float = 1.0, high_s: float = 1.8) -> str:
    usual = getattr(ArmSimParams(), name)
    rig.switch(name, value)
    rig.wait(rig.some(low_s, high_s))
    rig.switch(name, usual)
    return ""


def _noisy(rig: Rig) -> str:
    rig.auditor.set_noise(LOUD_RAD)
    _switched(rig, "joint_noise_rad", LOUD_RAD)
    rig.wait(0.3)
    rig.auditor.set_noise(JOINT_NOISE_RAD)
    return ""


def _slow_driver(rig: Rig) -> str:
    """The driver moves slower than commanded, as by the slider of a pendant."""
    return _switched(rig, "driver_speed_scale", rig.some(0.1, 0.7))


def _paused_driver(rig: Rig) -> str:
    """An operator pauses the driver: a new path may begin where the arm stands."""
    rig.auditor.operator_confirmed(time.time())
    problem = _switched(rig, "driver_speed_scale", 0.0)
    rig.auditor.operator_confirmed(-math.inf)
    return problem


def _short_stop(rig: Rig) -> str:
    """A protective stop that ends by itself before an operator can notice it."""
    return _switched(rig, "protective_stop", True, 0.03, 0.4)


# Processes --------------------------------------------------------------------------------------


def _kill(rig: Rig, name: str) -> str:
    rig.plant.kill(name)
    rig.wait(rig.some(1.0, 1.8))
    rig.plant.start(name)
    return ""


def _kill_robot(rig: Rig) -> str:
    rig.plant.kill("robot")
    rig.expect_rest()
    rig.wait(rig.some(0.2, 1.0))
    return _restart_robot(rig)


def _restart_robot(rig: Rig) -> str:
    """Start the killed robot node, wait until it answers, and observe it for REST_S."""
    rig.plant.start("robot")
    if not until(lambda: _answers(rig), START_S):
        return "the robot node does not answer after its restart"
    rig.wait(REST_S)
    return ""


def _answers(rig: Rig) -> bool:
    """Return whether the robot node answers. It refuses `reset` without an episode."""
    return rig.call("reset", answer_s=1.0)[1] not in ("no answer", "no service")


def _hangs(rig: Rig, name: str) -> str:
    rig.plant.send(name, signal.SIGSTOP)
    rig.wait(rig.some(1.0, 1.8))
    rig.plant.send(name, signal.SIGCONT)
    return ""


def _suspend_robot(rig: Rig) -> str:
    """Suspend the robot node for 0.05 to 5 s, half of the times the scripted policy too: then only
    older plans are there when the robot node continues, and none of them may move the arm."""
    seconds, old_plans = rig.some(0.05, 5.0), bool(rig.random.random() < 0.5)
    if old_plans:
        rig.plant.send("scripted_policy", signal.SIGSTOP)
    rig.plant.send("robot", signal.SIGSTOP)
    rig.expect_rest()
    rig.wait(seconds)
    if not old_plans:
        rig.may_move()
    rig.plant.send("robot", signal.SIGCONT)
    if old_plans:
        rig.wait(max(REST_S - seconds, 0.7))
        rig.may_move()
        rig.plant.send("scripted_policy", signal.SIGCONT)
    return ""


def _second_robot(rig: Rig) -> str:
    """Start a robot node for the same driver: it must exit with code 2 and one line."""
    ns = rig.plant.ns
    second = rig.plant.second_robot(str(rig.random.choice([ns, beside(ns, "second")])))
    end = time.monotonic() + EXIT_S
    while second.poll() is None and time.monotonic() < end:
        rig.wait(0.1)
    try:
        _, text = second.communicate(timeout=0.0 if second.poll() is None else None)
    except subprocess.TimeoutExpired:
        second.kill()
        second.communicate()
        return "the second robot node did not exit"
    errors = [line for line in text.splitlines() if line.startswith("error: ")]
    if second.returncode != 2 or len(errors) != 1 or "Traceback" in text:
        return f"the second robot node: code {second.returncode}: {text[:200]}"
    return ""


def _busy(rig: Rig) -> str:
    with busy(2):
        rig.wait(2.0)
    return ""


# Publishers -------------------------------------------------------------------------------------


def _rubbish(rig: Rig) -> str:
    """Publish invalid plans; the scripted policy is killed meanwhile, as it would have priority."""
    rig.plant.kill("scripted_policy")
    with rig.publishing(lambda: bad_plan(rig.random), 0.005):
        rig.wait(rig.some(1.0, 1.8))
    rig.plant.start("scripted_policy")
    return ""


def _second_driver(rig: Rig) -> str:
    with rig.second_driver(JOINTS_HZ * rig.some(0.1, 4.0)):
        end = time.monotonic() + rig.some(1.0, 2.0)
        reported = False
        while time.monotonic() < end:
            rig.wait(0.05)
            reported = reported or _reports_sources(rig)
    reported = reported or until(lambda: _reports_sources(rig), 1.5)  # reports come once a second
    return "" if reported else f"the second publisher was not reported: {rig.witness.state}"


def _reports_sources(rig: Rig) -> bool:
    return "several publishers" in rig.witness.state


def _early_driver(rig: Rig) -> str:
    """The robot node restarts while another publisher of joint states runs and arm_sim does not;
    then arm_sim starts and the operator calls resume: nothing may move."""
    rig.plant.kill("robot")
    rig.plant.kill("arm_sim")
    rig.expect_rest()
    with rig.second_driver(20.0):
        if problem := _restart_robot(rig):
            return problem
        start_s = time.time()
        rig.plant.start("arm_sim")
        if not until(lambda: rig.log.measured_since(start_s), START_S):
            return "arm_sim did not start"
        rig.wait(0.5)
        rig.call("resume")
        rig.wait(REST_S)
        rig.may_move()
    return ""


# The operator -----------------------------------------------------------------------------------


def _stop(rig: Rig) -> str:
    """Call the e-stop; the arm must not move afterwards."""
    rig.expect_rest()
    done, text = rig.call("estop", True)
    return "" if done else f"estop: {text}"


def _estop(rig: Rig) -> str:
    problem = _stop(rig)
    rig.wait(REST_S)
    return problem


def _estop_homing(rig: Rig) -> str:
    """End the episode, so that the arm goes home; refused where it is on its way home already."""
    rig.call("reset")
    rig.wait(rig.some(0.1, 0.8))
    return _estop(rig)


def _estop_restart(rig: Rig) -> str:
    problem = _stop(rig)
    rig.wait(rig.some(0.0, 0.5))
    rig.plant.kill("robot")
    problem = problem or _restart_robot(rig)
    done, text = rig.call("resume")
    if done or "latched" not in text:
        problem = problem or f"after the restart resume was answered: {text}"
    rig.wait(0.5)
    return problem


def _estop_clear(rig: Rig) -> str:
    problem = _stop(rig)
    rig.wait(rig.some(1.0, 1.5))
    done, text = rig.clear()
    rig.wait(REST_S)
    return problem or ("" if done else f"estop false: {text}")


def _long_plan(rig: Rig) -> str:
    with long_plans(rig.plant.ns):
        rig.wait(rig.some(0.5, 1.2))
        called_s = time.time()
        problem = _stop(rig)
        rig.wait(REST_S)
    took_s, most_s = rig.log.stop(called_s).commands_s, REACTION_S + _stop_s(rig)
    if not took_s <= most_s:
        problem = (
            problem or f"last moving command {took_s:.3f} s after the e-stop, not {most_s:.2f}"
        )
    return problem


def _stop_s(rig: Rig) -> float:
    """Return the duration of the shortest stop from the highest speed within the limits [s]."""
    limits, n = rig.config.limits, rig.config.arm_joints
    most = limits.velocity / limits.acceleration + limits.acceleration / limits.jerk
    return float(most[:n].max())


def _services(rig: Rig) -> str:
    """Call services in random order for 2 s; each must be answered."""
    calls = []
    end = time.monotonic() + 2.0
    while time.monotonic() < end:
        name, on = CALLS[int(rig.random.integers(len(CALLS)))]
        calls.append((name, rig.ask(name, on)))
        rig.wait(rig.some(0.02, 0.3))
    for name, future in calls:
        if not until(future.done, 5.0):
            return f"no answer to {name}"
    return ""


def _speed_changes(rig: Rig) -> str:
    """The operator changes the speed scale at random moments for 3 s."""
    problem = ""
    end = time.monotonic() + 3.0
    while time.monotonic() < end and not problem:
        problem = rig.scale_speed(rig.some(0.05, 1.0))
        rig.wait(rig.some(0.02, 0.6))
    return rig.scale_speed(1.0) or problem


def _recover(rig: Rig) -> str:
    """A protective stop, ended by the driver's service; nothing may move before resume."""
    rig.switch("protective_stop", True)
    rig.wait(rig.some(1.0, 1.8))
    rig.expect_rest()
    rig.wait(1.6)
    done, text = rig.call("recover")
    rig.wait(REST_S)
    return "" if done else f"recover: {text}"


def _switch_controller(rig: Rig) -> str:
    """The operator pauses, switches the controller off and on: nothing may move before resume."""
    rig.expect_rest()
    rig.call("pause", True)
    rig.wait(1.6)
    off, text = rig.call("deactivate")
    rig.wait(rig.some(0.1, 1.0))
    on, why = rig.call("activate")
    rig.wait(REST_S)
    return "" if off and on else f"deactivate: {text}; activate: {why}"


FAULTS: Mapping[str, Fault] = {
    "camera_dropped": Fault(
        partial(_switched, name="camera_dropped", value=True), stands=True, unaided=True
    ),
    "camera_frozen": Fault(
        partial(_switched, name="camera_frozen", value=True), stands=True, unaided=True
    ),
    "old images": Fault(
        partial(_switched, name="camera_delay_s", value=2.0, low_s=2.8, high_s=3.5),
        stands=True,
        unaided=True,
    ),
    "driver_dead": Fault(partial(_switched, name="driver_dead", value=True), stands=True),
    "protective_stop": Fault(partial(_switched, name="protective_stop", value=True), stands=True),
    "short protective stop": Fault(_short_stop),
    "controller inactive": Fault(
        partial(_switched, name="controller_inactive", value=True), stands=True
    ),
    "driver slows down": Fault(_slow_driver, unaided=True),
    "driver paused": Fault(_paused_driver, stands=True, unaided=True),
    "wrench_dropped": Fault(
        partial(_switched, name="wrench_dropped", value=True), stands=True, unaided=True
    ),
    "wrench_nan": Fault(
        partial(_switched, name="wrench_nan", value=True), stands=True, unaided=True
    ),
    "joint_delay_s": Fault(partial(_switched, name="joint_delay_s", value=0.3)),
    "joint_noise_rad": Fault(_noisy),
    "actuation_delay_s": Fault(partial(_switched, name="actuation_delay_s", value=0.1)),
    "wrapped joints": Fault(partial(_switched, name="wrap_joints", value=True), unaided=True),
    "nan velocity": Fault(partial(_switched, name="nan_velocity", value=True), unaided=True),
    "split states": Fault(partial(_switched, name="split_states", value=True), unaided=True),
    "kill scripted policy": Fault(
        partial(_kill, name="scripted_policy"), stands=True, unaided=True
    ),
    "kill recorder": Fault(partial(_kill, name="recorder"), unaided=True),
    "kill arm_sim": Fault(partial(_kill, name="arm_sim"), stands=True),
    "kill robot": Fault(_kill_robot, stands=True, rest=True),
    "scripted policy hangs": Fault(
        partial(_hangs, name="scripted_policy"), stands=True, unaided=True
    ),
    "recorder hangs": Fault(partial(_hangs, name="recorder"), unaided=True),
    "suspend robot": Fault(_suspend_robot, unaided=True),
    "second robot node": Fault(_second_robot, unaided=True),
    "busy machine": Fault(_busy),
    "rubbish plans": Fault(_rubbish, unaided=True),
    "second joint states": Fault(_second_driver, stands=True),
    "early joint state publisher": Fault(_early_driver, stands=True),
    "estop": Fault(_estop, stands=True, rest=True),
    "estop while homing": Fault(_estop_homing, stands=True, rest=True),
    "estop and clear without resume": Fault(_estop_clear, stands=True, rest=True),
    "restart while latched": Fault(_estop_restart, stands=True, rest=True),
    "long plan": Fault(_long_plan, stands=True, rest=True),
    "speed changes": Fault(_speed_changes, unaided=True),
    "recover": Fault(_recover, stands=True, rest=True),
    "switch controller": Fault(_switch_controller, stands=True, rest=True),
    "services at random": Fault(_services),
}
