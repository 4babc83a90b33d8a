"""Names of dm_control's tasks and cameras, without importing dm_control."""

from __future__ import annotations

from collections.abc import Mapping

DOMAINS = {  # domain, as in the names of tasks -> its tasks; lqr has unbounded actions and no end
    "cartpole": "balance balance_sparse swingup swingup_sparse two_poles three_poles",
    "acrobot": "swingup swingup_sparse",
    "cheetah": "run",
    "cup": "catch",
    "dog": "stand walk trot run fetch",
    "finger": "spin turn_easy turn_hard",
    "fish": "upright swim",
    "hopper": "hop stand",
    "humanoid": "stand walk run run_pure_state",
    "humanoid_CMU": "stand walk run",
    "manipulator": "bring_ball bring_peg insert_ball insert_peg",
    "pendulum": "swingup",
    "point_mass": "easy hard",
    "quadruped": "walk run escape fetch",
    "reacher": "easy hard",
    "stacker": "stack_2 stack_4",
    "swimmer": "swimmer6 swimmer15",
    "walker": "stand walk run",
    "manip": (
        "reach_duplo reach_site lift_brick lift_large_box place_brick place_cradle stack_2_bricks "
        "stack_2_bricks_moveable_base stack_3_bricks stack_2_of_3_bricks_random_order "
        "reassemble_3_bricks_fixed_order reassemble_5_bricks_random_order"
    ),
}
SUITE_NAMES = {"cup": "ball_in_cup"}  # domains whose name in the suite is another
MANIPULATION = "manip"  # the domain that is dm_control.manipulation, with its `_vision` tasks
TASKS: Mapping[str, tuple[str, str]] = {  # name -> (domain, task of the domain)
    f"{domain}_{task}": (domain, task)
    for domain, tasks in DOMAINS.items()
    for task in tasks.split()
}

MAIN = "main"  # the camera of published results: camera 0, of quadrupeds 2
CAMERAS = (MAIN, *(f"camera{index}" for index in range(5)))
MAIN_CAMERAS = {"quadruped": 2}

EPISODE_STEPS = 1000  # simulator steps after which the suite ends an episode
EPISODE_STEPS_OF = {MANIPULATION: 250}
