"""Forward kinematics of the end effector and all links, by MuJoCo's model, many poses at once.

The model file (MJCF, or the arm's URDF) is loaded once as it is for the Jacobian, and as FEW and as
MANY copies of its chain without geometry, so that one call of MuJoCo places so many poses: about
0.3 µs for each of 7 joints on one core.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from wm_nodes.robots.arm.geometry.model_file import LIGHT, load_chain
from wm_nodes.robots.arm.safety.limits import Floats
from wm_nodes.robots.robot import SpecError

FEW, MANY = 8, 32
DAMPING = 1e-3


class Kinematics:
    """Forward kinematics and Jacobian of `hand`, a site or body, for the named joints, in order.

    Other joints of the model (fingers) stay at zero.
    """

    def __init__(self, path: str | Path, joints: Sequence[str], hand: str) -> None:
        bare = load_chain(path, hand)
        import mujoco

        self._mj = mujoco
        self.joints = tuple(joints)
        try:
            one = bare.compile()
        except ValueError as error:
            raise SpecError(f"model {path}: {str(error).splitlines()[0]}") from None
        names = [one.joint(index).name for index in range(one.njnt)]
        missing = [name for name in joints if name not in names]
        if missing:
            raise SpecError(
                f"model {path}: got the joint {missing[0]!r}, expected one of {', '.join(names)}."
            )
        sites = [one.site(index).name for index in range(one.nsite)]
        if hand not in sites:
            has = ", ".join(filter(None, [*sites, *(body.name for body in bare.bodies)]))
            raise SpecError(f"model {path}: got the site or body {hand!r}, expected one of {has}.")
        self._one, self._data = one, mujoco.MjData(one)
        self._site = one.site(hand).id
        links = _chain(one, self._site)
        self._links = _run(links)
        self._link_names = (*(one.body(link).name or f"body {link}" for link in links), hand)
        self._at = _run([int(one.jnt_qposadr[one.joint(name).id]) for name in joints])
        self._dof = _run([int(one.jnt_dofadr[one.joint(name).id]) for name in joints])
        self._few, self._many = (
            _Copies(path, bare, hand, self._at, links, count) for count in (FEW, MANY)
        )
        self._jacp = np.zeros((3, one.nv))
        self._jacr = np.zeros((3, one.nv))
        self._check(path)

    @property
    def link_names(self) -> tuple[str, ...]:
        """Names (L,) of what `links` gives: bodies, then the site of the end effector."""
        return self._link_names

    def positions(self, q: Floats) -> Floats:
        """Return where the end effector is [m] in each pose: q (N, n) -> (N, 3)."""
        if len(q) == 1:
            self._place(q[0])
            position: Floats = self._data.site_xpos[self._site : self._site + 1].copy()
            return position
        if len(q) <= FEW:
            return self._few.positions(q)
        if len(q) <= MANY:
            return self._many.positions(q)
        parts = [self.positions(q[start : start + MANY]) for start in range(0, len(q), MANY)]
        return np.concatenate(parts)

    def links(self, q: Floats) -> Floats:
        """Return the origins [m] of `link_names` in each pose: q (N, n) [rad, m] -> (N, L, 3).

        Frame: the model's, as in `positions`. The moving links from the base to the end effector,
        then its site, so that links(q)[:, -1] is positions(q). Fingers are not on that chain.
        """
        if len(q) == 1:
            self._place(q[0])
            site = self._data.site_xpos[self._site : self._site + 1]
            origins: Floats = np.concatenate([self._data.xpos[self._links], site])
            return origins[None]
        if len(q) <= FEW:
            return self._few.links(q)
        if len(q) <= MANY:
            return self._many.links(q)
        parts = [self.links(q[start : start + MANY]) for start in range(0, len(q), MANY)]
        return np.concatenate(parts)

    def jacobian(self, q: Floats) -> tuple[Floats, Floats, Floats]:
        """Return the end effector's position (3,), linear and angular (3, n), in pose q (n,)."""
        self._place(q)
        self._mj.mj_comPos(self._one, self._data)
        self._mj.mj_jacSite(self._one, self._data, self._jacp, self._jacr, self._site)
        position: Floats = self._data.site_xpos[self._site].copy()
        return position, self._jacp[:, self._dof].copy(), self._jacr[:, self._dof].copy()

    def follow(self, q: Floats, twist: Floats, arm: int) -> Floats:
        """Return velocities (arm,) of the first joints for `twist` (6,) of the end effector.

        Damped least squares: near singular poses the end effector lags rather than the joints race.
        """
        _, linear, angular = self.jacobian(q)
        both = np.concatenate([linear[:, :arm], angular[:, :arm]])
        square = both @ both.T
        square[np.diag_indices(6)] += DAMPING
        out: Floats = both.T @ np.linalg.solve(square, twist)
        return out

    def turned(self, q: Floats, upright: Floats) -> Floats:
        """Return the small rotation (3,) [rad] that turns the end effector to `upright` (3, 3)."""
        off: Floats = 0.5 * np.cross(self.orientation(q).T, upright.T).sum(axis=0)
        return off

    def orientation(self, q: Floats) -> Floats:
        """Return the end effector's rotation matrix (3, 3) in pose q (n,)."""
        self._place(q)
        turned: Floats = self._data.site_xmat[self._site].reshape(3, 3).copy()
        return turned

    def _check(self, path: str | Path) -> None:
        """Refuse a model whose copies differ from it."""
        poses = np.random.default_rng(0).uniform(-1, 1, (MANY + FEW, len(self.joints)))
        single = np.concatenate([self.links(pose[None]) for pose in poses])
        if np.abs(self.links(poses) - single).max() > 1e-9:
            raise SpecError(
                f"model {path}: got copies that differ from it, expected equal ones. Give "
                "angles as quat."
            )

    def _place(self, q: Floats) -> None:
        self._data.qpos[self._at] = q
        self._mj.mj_kinematics(self._one, self._data)


class _Copies:
    """So many copies of a chain in one model: one call places them all."""

    def __init__(
        self, path: str | Path, bare: Any, hand: str, at: Any, links: list[int], count: int
    ) -> None:
        import mujoco

        self._kinematics: Any = mujoco.mj_kinematics
        spec = mujoco.MjSpec()
        spec.compiler.boundmass = spec.compiler.boundinertia = LIGHT
        spec.compiler.degree, spec.compiler.eulerseq = bare.compiler.degree, bare.compiler.eulerseq
        for copy in range(count):
            chain = load_chain(path, hand).worldbody.first_body()
            spec.worldbody.add_frame().attach_body(chain, f"{copy}_", "")
        self._model = spec.compile()
        self._data = mujoco.MjData(self._model)
        self._rows, self._at = self._data.qpos.reshape(count, -1), at
        try:
            sites = _run([self._model.site(f"{copy}_{hand}").id for copy in range(count)])
        except KeyError:
            raise SpecError(
                f"model {path}: got {hand!r} outside the first body of the world, expected it on "
                "the arm that the world begins with. Put the arm first."
            ) from None
        self._hands = self._data.site_xpos[sites]
        self._bodies = self._data.xpos[1:].reshape(count, -1, 3)  # each copy's, without the world
        self._links, self._sized = _run([link - 1 for link in links]), (len(links) + 1, 3)

    def positions(self, q: Floats) -> Floats:
        """Return (N, 3) of up to `count` poses q (N, n)."""
        self._rows[: len(q), self._at] = q
        self._kinematics(self._model, self._data)
        out: Floats = self._hands[: len(q)].copy()
        return out

    def links(self, q: Floats) -> Floats:
        """Return (N, L, 3) of up to `count` poses q (N, n)."""
        self._rows[: len(q), self._at] = q
        self._kinematics(self._model, self._data)
        out: Floats = np.empty((len(q), *self._sized))
        out[:, :-1] = self._bodies[: len(q), self._links]
        out[:, -1] = self._hands[: len(q)]
        return out


def _chain(model: Any, site: int) -> list[int]:
    """Return the bodies from the base to the site that a joint moves, in order."""
    bodies, body = [], int(model.site_bodyid[site])
    while model.body_weldid[body]:
        bodies.append(body)
        body = int(model.body_parentid[body])
    return bodies[::-1]


def _run(indices: list[int]) -> Any:
    """Return evenly spaced rising indices as a slice, which makes a view, or else an array."""
    taken = np.array(indices, np.intp)
    if not indices:
        return taken
    steps = np.unique(np.diff(taken))
    if len(steps) > 1 or (steps < 1).any():
        return taken
    return slice(indices[0], indices[-1] + 1, int(steps[0]) if len(steps) else 1)
