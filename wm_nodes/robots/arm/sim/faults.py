"""Faults of the simulated arm's controller and sensors."""

from __future__ import annotations

from dataclasses import dataclass

JOINT_NOISE_RAD, IMAGE_NOISE = 0.0005, 1.5  # encoders and cameras are never perfectly still


@dataclass
class Faults:
    """Everything that can be wrong, one field for each fault, all switchable while it runs."""

    joint_noise_rad: float = JOINT_NOISE_RAD  # rad, or m
    image_noise: float = IMAGE_NOISE  # grey levels
    actuation_delay_s: float = 0.0
    camera_dropped: bool = False
    camera_frozen: bool = False
    joint_delay_s: float = 0.0
    driver_dead: bool = False  # no joint states, commands are ignored, the arm holds
    protective_stop: bool = False  # joint states go on, commands are ignored, the arm holds
    wrap_joints: bool = False  # angles are reported in (-pi, pi]
    nan_velocity: bool = False  # velocities (and efforts, on topics) are reported as NaN
    split_states: bool = False  # on topics: arm and gripper joints in messages of their own
    camera_delay_s: float = 0.0  # on topics: images are published so late, with their old stamps
    wrench_dropped: bool = False  # no readings of the force-torque sensor
    wrench_nan: bool = False  # its readings are NaN
    wrench_bias_n: float = 0.0  # added to its force along z
    controller_inactive: bool = False  # joint states go on, commands are dropped, the arm holds
    driver_speed_scale: float = 1.0  # no joint moves faster than this share of its limit; 0: paused
    velocity_timeout_s: float = 0.1  # velocities and twists end so long after one; 0: never
