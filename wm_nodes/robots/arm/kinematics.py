"""Where the hand is: forward kinematics through MuJoCo's model of an arm, many poses at once.

The model file (MJCF, or the arm's URDF) is loaded once as it is for the Jacobian, and once as
BATCH copies of its chain without geometry, so that one call of MuJoCo places BATCH poses: about
12 µs for 32 poses of 7 joints on one core.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from wm_nodes.robots.arm.limits import Floats
from wm_nodes.robots.base import SpecError

BATCH = 32
DAMPING = 1e-3
LIGHT = 1e-3  # [kg, kg m²] of links without any: only dynamics would care


class Kinematics:
    """Forward kinematics and Jacobian of the site `hand` for the named joints, in that order.

    Other joints of the model (fingers) stay at zero.
    """

    def __init__(self, path: str | Path, joints: Sequence[str], hand: str) -> None:
        import mujoco

        self._mj = mujoco
        self.joints = tuple(joints)
        bare = _bare(path)
        try:
            one = bare.compile()
        except ValueError as error:
            raise SpecError(f"model {path}: {str(error).splitlines()[0]}") from None
        names = [one.joint(index).name for index in range(one.njnt)]
        missing = [name for name in joints if name not in names]
        if missing:
            raise SpecError(f"model {path}: no joint {missing[0]!r}. It has: {', '.join(names)}.")
        sites = [one.site(index).name for index in range(one.nsite)]
        if hand not in sites:
            raise SpecError(f"model {path}: no site {hand!r}. It has: {', '.join(sites)}.")
        self._one, self._data = one, mujoco.MjData(one)
        self._site = one.site(hand).id
        self._at = np.array([one.jnt_qposadr[one.joint(name).id] for name in joints])
        self._dof = np.array([one.jnt_dofadr[one.joint(name).id] for name in joints])
        many = mujoco.MjSpec()
        many.compiler.boundmass = many.compiler.boundinertia = LIGHT
        many.compiler.degree, many.compiler.eulerseq = bare.compiler.degree, bare.compiler.eulerseq
        for copy in range(BATCH):
            many.worldbody.add_frame().attach_body(
                _bare(path).worldbody.first_body(), f"{copy}_", ""
            )
        self._many = many.compile()
        self._poses = mujoco.MjData(self._many)
        self._stride = self._many.nq // BATCH
        self._rows = self._poses.qpos.reshape(BATCH, self._stride)
        first = [self._many.site(f"{copy}_{hand}").id for copy in range(BATCH)]
        self._hands = np.array(first)
        self._jacp = np.zeros((3, one.nv))
        self._jacr = np.zeros((3, one.nv))
        self._check(path)

    def positions(self, q: Floats) -> Floats:
        """Return where the hand is [m] in each pose: q (N, n) -> (N, 3)."""
        out = np.empty((len(q), 3))
        for start in range(0, len(q), BATCH):
            part = q[start : start + BATCH]
            self._rows[: len(part), self._at] = part
            self._mj.mj_kinematics(self._many, self._poses)
            out[start : start + len(part)] = self._poses.site_xpos[self._hands[: len(part)]]
        return out

    def jacobian(self, q: Floats) -> tuple[Floats, Floats, Floats]:
        """Return (position (3,), linear (3, n), angular (3, n)) of the hand in pose q (n,)."""
        self._place(q)
        self._mj.mj_comPos(self._one, self._data)
        self._mj.mj_jacSite(self._one, self._data, self._jacp, self._jacr, self._site)
        position: Floats = self._data.site_xpos[self._site].copy()
        return position, self._jacp[:, self._dof], self._jacr[:, self._dof]

    def follow(self, q: Floats, twist: Floats, arm: int) -> Floats:
        """Return velocities (arm,) of the first joints that move the hand with `twist` (6,).

        Damped least squares: near singular poses the hand lags rather than the joints race.
        """
        _, linear, angular = self.jacobian(q)
        both = np.concatenate([linear[:, :arm], angular[:, :arm]])
        square = both @ both.T
        square[np.diag_indices(6)] += DAMPING
        out: Floats = both.T @ np.linalg.solve(square, twist)
        return out

    def turned(self, q: Floats, upright: Floats) -> Floats:
        """Return the small rotation (3,) [rad] that would bring the hand to attitude `upright`."""
        off: Floats = 0.5 * np.cross(self.orientation(q).T, upright.T).sum(axis=0)
        return off

    def orientation(self, q: Floats) -> Floats:
        """Return the hand's rotation matrix (3, 3) in pose q (n,)."""
        self._place(q)
        turned: Floats = self._data.site_xmat[self._site].reshape(3, 3).copy()
        return turned

    def _check(self, path: str | Path) -> None:
        """Refuse a model whose copies are not what it is."""
        poses = np.random.default_rng(0).uniform(-1, 1, (BATCH, len(self.joints)))
        single = np.array([self.jacobian(pose)[0] for pose in poses])
        if np.abs(self.positions(poses) - single).max() > 1e-9:
            raise SpecError(f"model {path}: its copies differ from it. Right: angles as quat.")

    def _place(self, q: Floats) -> None:
        self._data.qpos[self._at] = q
        self._mj.mj_kinematics(self._one, self._data)


def _bare(path: str | Path) -> Any:
    """Return the model without geometry: links weigh nothing that matters here."""
    import mujoco

    try:
        spec = mujoco.MjSpec.from_file(str(path))
    except (ValueError, OSError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise SpecError(f"model {path}: {reason}. Right: MJCF, or the arm's URDF.") from None
    for kind in ("geoms", "actuators", "sensors", "equalities", "meshes", "cameras", "lights"):
        for part in list(getattr(spec, kind, [])):
            part.delete()
    spec.compiler.boundmass = spec.compiler.boundinertia = LIGHT
    return spec
