"""Collision checking against independent geometry, on all shipped arms; origins of links."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cache

import numpy as np
import pytest

pytest.importorskip("mujoco", reason="needs the [sim] extra")

import mujoco

from tests.wm_nodes.robots.arm.arms import NAMES, config, kinematics
from wm_nodes.robots.arm.geometry.collision import CollisionChecker
from wm_nodes.robots.robot import SpecError

MARGIN = 0.01


@dataclass(frozen=True)
class Box:
    name: str
    low: tuple[float, float, float]
    high: tuple[float, float, float]


@cache
def checker(name: str, *obstacles: Box, margin: float = MARGIN) -> CollisionChecker:
    arm = config(name)
    return CollisionChecker(arm.model, arm.limits.joints, obstacles=obstacles, margin_m=margin)


def around(center: np.ndarray, size: tuple[float, float, float], name: str = "box") -> Box:
    half = np.array(size) / 2
    return Box(name, tuple(center - half), tuple(center + half))


def random_poses(name: str, count: int, seed: int = 0) -> np.ndarray:
    limits = config(name).limits
    shape = (count, len(limits.joints))
    return np.random.default_rng(seed).uniform(limits.low, limits.high, shape)


def line(start: np.ndarray, end: np.ndarray, count: int) -> np.ndarray:
    return start + np.linspace(0.0, 1.0, count)[:, None] * (end - start)


# Links with links -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_home_and_small_motions_around_it_are_clear(name):
    limits, home = config(name).limits, config(name).home
    assert checker(name).contacts_at(home) == ()
    random = np.random.default_rng(1)
    poses = home + np.cumsum(random.uniform(-0.02, 0.02, (200, len(home))), axis=0)
    near = np.clip(poses, home - 0.2, home + 0.2)
    assert checker(name).first_contact(np.clip(near, limits.low, limits.high)) == ""


FOLDED = {
    "arm_sim": ([0.0, 0.45, 1.9, 0.0, 2.8, 0.0, 0.0], "link_4 / link_6"),  # wrist back on forearm
    "ur5e": ([0.0, -1.57, 3.1, -1.57, -1.57, 0.0], "link_2 / link_4"),  # elbow closed
    "fr3": ([0.0, 0.0, 0.0, -2.99, 0.0, 0.6, 0.0], "link_1 / link_7"),  # flange at the column
    "gen3": ([0.0, 0.0, 0.0, -2.5, 0.0, -2.0, 0.0], "link_2 / link_7"),
    "jaco2": ([-1.478, 2.92, 0.4, -2.08, 1.44, 1.32], "link_2 / link_4"),
}


@pytest.mark.parametrize("name", NAMES)
def test_a_folded_arm_is_in_contact_with_itself(name):
    folded, pair = np.array(FOLDED[name][0]), FOLDED[name][1]
    assert pair in checker(name).contacts_at(folded)
    path = line(config(name).home, folded, 30)
    assert checker(name).first_contact(path) != ""
    assert checker(name).first_contact(path[::-1]) != ""


def segment_distance(p: np.ndarray, q: np.ndarray) -> float:
    """Return the distance of two segments (2, 3) each: minimum over one end, or inside both."""
    (a, b), (c, d) = p, q

    def to_point(start: np.ndarray, end: np.ndarray, point: np.ndarray) -> float:
        direction = end - start
        fraction = np.clip(
            (point - start) @ direction / max(direction @ direction, 1e-12), 0.0, 1.0
        )
        return float(np.linalg.norm(start + fraction * direction - point))

    least = min(to_point(a, b, c), to_point(a, b, d), to_point(c, d, a), to_point(c, d, b))
    system = np.stack([b - a, c - d], axis=1)
    s, t = np.linalg.lstsq(system, c - a, rcond=None)[0]
    if 0 <= s <= 1 and 0 <= t <= 1:
        least = min(least, float(np.linalg.norm(system @ [s, t] - (c - a))))
    return least


def expected_contacts(name: str, pose: np.ndarray) -> dict[str, float]:
    """Return the clearance of each pair of links [m], from segments and radii of the capsules."""
    arm = config(name)
    spec = mujoco.MjSpec.from_file(str(arm.model))
    excluded = {
        frozenset((exclusion.bodyname1, exclusion.bodyname2)) for exclusion in spec.excludes
    }
    model = spec.compile()
    data = mujoco.MjData(model)
    for joint, position in zip(arm.limits.joints, pose):
        data.joint(joint).qpos = position
    mujoco.mj_kinematics(model, data)
    clearance: dict[str, float] = {}
    for first, second in itertools.combinations(range(model.ngeom), 2):
        a, b = (int(model.geom_bodyid[index]) for index in (first, second))
        names = [model.body(body).name for body in (a, b)]
        if b - a < 2 or frozenset(names) in excluded:  # a serial chain: bodies in order
            continue
        ends = []
        for geom in (first, second):
            sphere = model.geom_type[geom] == mujoco.mjtGeom.mjGEOM_SPHERE
            half = 0.0 if sphere else model.geom_size[geom, 1]
            axis = half * data.geom_xmat[geom].reshape(3, 3)[:, 2]
            ends.append(np.stack([data.geom_xpos[geom] - axis, data.geom_xpos[geom] + axis]))
        radii = model.geom_size[first, 0] + model.geom_size[second, 0]
        pair = " / ".join(names)
        clearance[pair] = min(segment_distance(*ends) - radii, clearance.get(pair, np.inf))
    return clearance


@pytest.mark.parametrize("name", ["ur5e", "jaco2"])
def test_contacts_are_those_of_segments_and_radii(name):
    count = 0
    for pose in random_poses(name, 200):
        clearance = expected_contacts(name, pose)
        clear_cut = {pair for pair, gap in clearance.items() if abs(gap - MARGIN) > 1e-6}
        expected = {pair for pair, gap in clearance.items() if gap < MARGIN}
        contacts = set(checker(name).contacts_at(pose))
        assert contacts & clear_cut == expected & clear_cut
        for pair, distance in checker(name)._few.distances(pose[None])[0].items():
            assert distance == pytest.approx(clearance[pair], abs=1e-6)
        count += len(contacts)
    assert count >= 5


def test_a_mirrored_pose_has_the_same_contacts():
    signs = np.array([-1, 1, 1, -1, 1, -1, 1])  # about the plane through base and end effector
    for pose in random_poses("arm_sim", 100):
        contacts = checker("arm_sim").contacts_at(pose)
        swap = {"finger_left": "finger_right", "finger_right": "finger_left"}
        mirrored = {
            " / ".join(swap.get(link, link) for link in pair.split(" / ")) for pair in contacts
        }
        assert mirrored == set(checker("arm_sim").contacts_at(pose * signs))


def test_one_pose_and_many_poses_give_equal_contacts():
    poses = random_poses("gen3", 100, seed=3)
    check = checker("gen3", around(np.array([0.4, 0.0, 0.2]), (0.3, 0.3, 0.3)))
    for pose in poses:
        contacts = check.contacts_at(pose)
        assert check.first_contact(pose[None]) == (contacts[0] if contacts else "")
        repeated = np.repeat(pose[None], 20, axis=0)
        assert check._many.distances(repeated)[-1].keys() == dict.fromkeys(contacts).keys()


# Links with boxes -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_the_end_effector_driven_into_a_box_is_in_contact_with_it(name):
    arm, chain = config(name), kinematics(name)
    start = chain.positions(arm.home[None])[0]
    box = around(start - [0.0, 0.0, 0.25], (0.1, 0.1, 0.2))
    check = checker(name, box)
    assert check.contacts_at(arm.home) == ()
    path = [arm.home]
    for _ in range(40):
        twist = np.array([0.0, 0.0, -0.006, 0.0, 0.0, 0.0])
        step = chain.follow(path[-1], twist, arm.arm_joints)
        path.append(path[-1] + np.pad(step, (0, len(arm.home) - len(step))))
    contact = check.first_contact(np.array(path))
    assert contact.endswith(" / box")
    assert checker(name).first_contact(np.array(path)) == ""


@pytest.mark.parametrize("name", NAMES)
def test_a_thin_wall_between_two_poses_is_detected(name):
    arm, chain = config(name), kinematics(name)
    start, end = arm.home.copy(), arm.home.copy()
    start[0] -= 0.4
    end[0] += 0.4
    end_effector = chain.positions(arm.home[None])[0]
    direction = np.array([-end_effector[1], end_effector[0]]) / np.hypot(
        *end_effector[:2]
    )  # direction of motion at home
    size = np.where(np.abs(direction) > 0.5, 1e-4, 0.1)  # thin along the axis nearest to it
    check = checker(name, around(end_effector, (size[0], size[1], 0.1), "wall"))
    assert not check.contacts_at(start) and not check.contacts_at(end)
    assert check.first_contact(np.array([start, end])).endswith(" / wall")
    assert checker(name).first_contact(np.array([start, end])) == ""


@pytest.mark.parametrize("name", NAMES)
def test_no_point_of_a_link_moves_more_than_the_margin_between_checked_poses(name):
    arm, check = config(name), checker(name)
    model = mujoco.MjModel.from_xml_path(str(arm.model)) if name == "arm_sim" else None
    for seed in range(5):
        path = random_poses(name, 4, seed)
        poses = check._resampled(path)
        np.testing.assert_array_equal(poses[[0, -1]], path[[0, -1]])
        distances = np.linalg.norm(np.diff(kinematics(name).links(poses), axis=0), axis=-1)
        assert distances.max() <= MARGIN + 1e-9
        if model is not None:
            corners = []
            data = mujoco.MjData(model)
            for pose in poses:
                for joint, position in zip(arm.limits.joints, pose):
                    data.joint(joint).qpos = position
                mujoco.mj_kinematics(model, data)
                geom = model.geom("collision_6").id
                corner = data.geom_xmat[geom].reshape(3, 3) @ model.geom_size[geom]
                corners.append(data.geom_xpos[geom] + corner)
            assert np.linalg.norm(np.diff(corners, axis=0), axis=-1).max() <= MARGIN + 1e-9


def test_a_path_that_hardly_moves_is_checked_at_both_ends_only():
    home = config().home
    path = line(home, home + 1e-5, 30)
    np.testing.assert_array_equal(checker("arm_sim")._resampled(path), path[[0, -1]])
    assert checker("arm_sim").first_contact(path[:0]) == ""


def test_the_base_may_stand_on_a_box():
    table = Box("table", (-1.0, -1.0, -0.1), (1.0, 1.0, 0.0))
    for name in NAMES:
        assert checker(name, table).contacts_at(config(name).home) == ()


def test_both_fingers_follow_the_gripper_joint():
    arm = config()
    end_effector = kinematics().positions(arm.home[None])[0]
    box = around(end_effector + np.array([0.0, -0.045, 0.0]), (0.04, 0.02, 0.02))
    check, opened = checker("arm_sim", box), arm.home.copy()
    assert not check.contacts_at(opened)
    opened[-1] = 0.035
    assert check.contacts_at(opened) == ("finger_right / box",)


# Contact at the start ---------------------------------------------------------------------------


def test_an_allowed_contact_may_be_left_but_not_go_deeper():
    home = config("ur5e").home
    end_effector = kinematics("ur5e").positions(home[None])[0]
    check = checker("ur5e", around(end_effector - [0.0, 0.0, 0.1], (0.3, 0.3, 0.2)))
    allowed = frozenset(check.contacts_at(home))
    assert allowed == {"link_6 / box"}

    def path(up: float) -> np.ndarray:
        step = kinematics("ur5e").follow(home, np.array([0.0, 0.0, up, 0.0, 0.0, 0.0]), 6)
        return line(home, home + step, 20)

    assert check.first_contact(path(0.03)) == "link_6 / box"  # not allowed
    assert check.first_contact(path(0.03), allowed) == ""
    assert check.first_contact(path(-0.03), allowed) == "link_6 / box"
    assert check.first_contact(np.repeat(home[None], 3, axis=0), allowed) == ""
    there_and_back = np.concatenate([path(0.02), path(-0.02)])
    assert check.first_contact(there_and_back, allowed) == "link_6 / box"
    assert check.first_contact(path(-0.08), frozenset({"link_1 / box"})) == "link_6 / box"


def test_a_larger_margin_reports_earlier():
    home = config("fr3").home
    end_effector = kinematics("fr3").positions(home[None])[0]
    box = around(end_effector - [0.0, 0.0, 0.13], (0.1, 0.1, 0.2))  # 0.02 m or so below the flange
    assert not checker("fr3", box, margin=0.005).contacts_at(home)
    assert checker("fr3", box, margin=0.05).contacts_at(home)


# What is refused --------------------------------------------------------------------------------


def test_invalid_models_and_poses_are_refused(tmp_path):
    arm = config("ur5e")
    joints = arm.limits.joints
    with pytest.raises(SpecError, match=r"margin_m: got 0, expected above 0"):
        CollisionChecker(arm.model, joints, margin_m=0)
    with pytest.raises(SpecError, match=r"got joint 'knee', expected one of shoulder_pan_joint"):
        CollisionChecker(arm.model, ["knee"])
    with pytest.raises(SpecError, match=r"obstacle 'flat': .* low below high"):
        CollisionChecker(arm.model, joints, obstacles=[Box("flat", (0, 0, 0), (1, 1, 0))])
    with pytest.raises(SpecError, match=r"obstacle 'far': .* expected three finite"):
        CollisionChecker(arm.model, joints, obstacles=[Box("far", (0, 0, 0), (1, 1, np.inf))])
    with pytest.raises(SpecError, match=r"expected MJCF or URDF"):
        CollisionChecker(tmp_path / "none.xml", joints)
    without_collision = tmp_path / "bare.xml"
    without_collision.write_text(arm.model.read_text().replace("collision_", "visual_"))
    with pytest.raises(SpecError, match=r"got no collision geometry, expected geoms named"):
        CollisionChecker(without_collision, joints)
    for wrong in (np.zeros(6), np.zeros((2, 5)), np.full((2, 6), np.nan)):
        with pytest.raises(SpecError, match=r"poses: got shape"):
            checker("ur5e").first_contact(wrong)


# Origins of links -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_links_of_many_poses_equal_those_of_mujoco(name):
    arm, chain = config(name), kinematics(name)
    spec = mujoco.MjSpec.from_file(str(arm.model))
    spec.compiler.boundmass = spec.compiler.boundinertia = 1e-3
    model = spec.compile()
    data = mujoco.MjData(model)
    assert chain.link_names == (*(f"link_{n + 1}" for n in range(arm.arm_joints)), arm.hand)
    for count in (1, 5, 30, 45):
        poses = random_poses(name, count, seed=count)
        links = chain.links(poses)
        assert links.shape == (count, len(chain.link_names), 3)
        np.testing.assert_array_equal(links[:, -1], chain.positions(poses))
        for pose, origins in zip(poses, links):
            for joint, position in zip(arm.limits.joints, pose):
                data.joint(joint).qpos = position
            mujoco.mj_kinematics(model, data)
            single = [data.body(link).xpos for link in chain.link_names[:-1]]
            np.testing.assert_allclose(origins[:-1], single, atol=1e-12)
            np.testing.assert_allclose(origins[-1], data.site(arm.hand).xpos, atol=1e-12)


def test_returned_links_are_not_overwritten():
    chain, home = kinematics(), config().home
    for count in (1, 4, 20):
        first = chain.links(np.repeat(home[None], count, axis=0))
        kept = first.copy()
        chain.links(random_poses("arm_sim", count))
        np.testing.assert_array_equal(first, kept)
