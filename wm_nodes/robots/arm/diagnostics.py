"""An arm's faults and figures, as the diagnostics show them."""

from __future__ import annotations

from collections.abc import Mapping

from wm_nodes.robots.arm.motion import ArmMotion
from wm_nodes.robots.arm.sensors import wrench

FAULT_TEXTS = {  # of stops and latches
    "estop": "emergency stop",
    "tracking": "the arm does not follow",
    "displaced": "the arm is not where it was commanded to be",
    "gate": "a command beyond one period's reach was not sent",
    "commander": "another node commands this arm",
    "record": "the record of the last run cannot be read",
    "driver": "no joint states: stopped",
    "driver_paused": "the driver reports speed 0 (paused on its pendant): stopped",
    "driver_speed": "the driver's speed scaling is unknown: stopped",
    "deactivated": "the driver's controller is not active: call activate, then resume",
    "camera": "no images: stopped",
    "camera_late": "the images are too old by their stamps: stopped",
    "frozen": "the same image again and again: stopped",
    "plan": "no valid plan: holding",
    wrench.STOP: "no usable reading of the force-torque sensor: stopped",
    wrench.LATCH: "force or torque beyond its limit",
}


def faults(motion: ArmMotion) -> dict[str, str]:
    """Return what is wrong with the arm now: name -> what it means."""
    supervisor = motion.supervisor
    texts = {name: FAULT_TEXTS.get(name, name) for name in supervisor.stopping}
    texts |= motion.driver.reports()
    texts |= supervisor.connection_faults
    for name, why in dict(supervisor.latched).items():
        texts[name] = f"{FAULT_TEXTS.get(name, name)}: {why}. Latched: call clear, then resume"
    if motion.filter.outside and supervisor.measured is not None:
        texts["outside"] = f"beyond its limits: {', '.join(motion.filter.outside)}"
    return texts


def facts(motion: ArmMotion) -> dict[str, object]:
    """Return figures: counts of interventions and stops, speed scales, age of the images."""
    filter, supervisor = motion.filter, motion.supervisor
    age_ms = 1e3 * supervisor.image_age_s(motion.driver.now_s())
    return {
        **{f"interventions/{k}": v for k, v in sorted(filter.interventions.items())},
        **{f"stops/{k}": v for k, v in sorted(supervisor.stops.items())},
        **_speed_facts(motion),
        "moving": str(not filter.at_rest).lower(),
        "image_age_ms": f"{age_ms:.0f}",
    }


def _speed_facts(motion: ArmMotion) -> Mapping[str, str]:
    speed = motion.speed
    driver = speed.driver(motion.driver.now_s())
    dropped = {f"drops/speed_scaling/{k}": str(v) for k, v in sorted(dict(speed.dropped).items())}
    driver_scale = "unknown" if driver is None else f"{driver:g}"
    return {"speed_scale": f"{speed.operator:g}", "driver_speed_scale": driver_scale, **dropped}
