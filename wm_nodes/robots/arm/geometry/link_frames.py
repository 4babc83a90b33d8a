"""Where all links of a robot description are, at given joint positions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from wm_nodes.robots.arm.geometry.model_file import load_links
from wm_nodes.robots.arm.geometry.urdf import WORLD, Description
from wm_nodes.robots.arm.safety.limits import Floats
from wm_nodes.robots.robot import SpecError


class LinkFrames:
    """Forward kinematics of a URDF: one pose at a time, every link.

    `names` (L,): all links but the root; `parents` (L,): the link that each is joined to;
    `constant` (L,): whether it is joined by a fixed joint. `joints` (n,) are in the order of
    positions; those that mimic one of them follow it, the rest stay at zero.
    SpecError: a joint is missing, or the description cannot be read.
    """

    def __init__(self, description: Description, joints: Sequence[str]) -> None:
        spec, mimics = load_links(description.text)
        import mujoco

        self._kinematics = mujoco.mj_kinematics
        try:
            self._model = model = spec.compile()
            self._at = [int(model.joint(name).qposadr[0]) for name in joints]
        except (ValueError, KeyError) as error:
            reason = " ".join(str(error).split())
            raise SpecError(
                f"robot_description: got {reason}, expected all joints in it."
            ) from None
        self._data = mujoco.MjData(model)
        order = list(joints)
        following = [mimic for mimic in mimics if mimic.leader in order]
        self._followers = [int(model.joint(m.follower).qposadr[0]) for m in following]
        self._leaders = [order.index(mimic.leader) for mimic in following]
        self._factors = np.array([mimic.factor for mimic in following])
        self._offsets = np.array([mimic.offset for mimic in following])
        names = [model.body(body).name for body in range(model.nbody)]
        self.root = description.root
        names[0] = WORLD if self.root == WORLD else ""
        links = [body for body in range(1, model.nbody) if names[body] != self.root]
        self._links = np.array(links, np.intp)
        self._on = model.body_parentid[self._links]
        self.names = tuple(names[body] for body in links)
        self.parents = tuple(names[body] for body in self._on)
        self.constant = tuple(not count for count in model.body_jntnum[self._links])
        self._hand = names.index(description.end_effector)

    def place(self, q: Floats) -> None:
        """Bring the links to joint positions q (n,) [rad, m]; the other methods return them."""
        qpos = self._data.qpos
        qpos[self._at] = q
        if self._followers:
            qpos[self._followers] = self._factors * q[self._leaders] + self._offsets
        self._kinematics(self._model, self._data)

    def in_root(self) -> tuple[Floats, Floats]:
        """Return positions (L, 3) [m] and quaternions (L, 4), x y z w, in the root link's frame."""
        return self._data.xpos[self._links], _xyzw(self._data.xquat[self._links])

    def in_parents(self) -> tuple[Floats, Floats]:
        """Return positions (L, 3) [m] and quaternions (L, 4), x y z w, each in its parent."""
        data, on, links = self._data, self._on, self._links
        turns = data.xmat[on].reshape(-1, 3, 3)
        places: Floats = np.einsum("lji,lj->li", turns, data.xpos[links] - data.xpos[on])
        w, v = data.xquat[on, :1], -data.xquat[on, 1:]  # the inverse turn
        w2, v2 = data.xquat[links, :1], data.xquat[links, 1:]
        scalar = w * w2 - (v * v2).sum(axis=1, keepdims=True)
        return places, np.concatenate([w * v2 + w2 * v + np.cross(v, v2), scalar], axis=1)

    def end_effector(self) -> tuple[Floats, Floats]:
        """Return position (3,) [m] and quaternion (4,), x y z w, in the root link's frame."""
        data, body = self._data, self._hand
        return data.xpos[body].copy(), _xyzw(data.xquat[body])


def _xyzw(quat: Floats) -> Floats:
    return np.roll(quat, -1, axis=-1)
