"""Collision checking of an arm's commanded motion: contacts of links with links and with boxes.

Geometry: geoms of the arm's MuJoCo model whose names begin with PREFIX; of a URDF all collision
geometry. Contacts and distances are MuJoCo's own. FEW and MANY copies of the arm stand in one
model, so that one call checks so many poses: 30 poses take about 0.1 ms on one core, a box adds
half of that.

These pairs are not checked:
- a link and the link that it turns on, and links that turn on the same link, such as two fingers:
  they overlap at the joint;
- pairs that the model excludes (<contact><exclude body1= body2=>); the model states the reason;
- the base and a box: the base stands on one of them.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from wm_nodes.robots.arm.geometry.model_file import LIGHT, PREFIX, load_contacts
from wm_nodes.robots.arm.safety.limits import Floats
from wm_nodes.robots.robot import SpecError

FEW, MANY = 4, 32
DEEPER_M = 1e-6  # by which an allowed contact may become closer: numerical precision
MEMORY = 2**25  # [byte] for contacts of all copies at once
SLIDE = 2  # mjtJoint
EQUAL = [0, 1, 0, 0, 0]  # polynomial of an <equality> of two joints that are the same


class Box(Protocol):
    """An obstacle: its lowest and highest corner (3,) [m] in the arm's base frame."""

    @property
    def name(self) -> str: ...

    @property
    def low(self) -> Sequence[float] | Floats: ...

    @property
    def high(self) -> Sequence[float] | Floats: ...


class CollisionChecker:
    """Finds contacts of an arm: pairs of links, or of a link and a box.

    A pair is in contact when its distance is below `margin_m`. It is named by bodies of the model,
    in the order of the chain, and by the box: 'link_2 / link_6', 'link_5 / table'. `joints` gives
    the order of positions. Of the model's other joints, those that an <equality> makes equal to one
    of them follow it (a second finger); the rest stay at zero.

    SpecError: the model cannot be read, lacks a joint or has no collision geometry; a box has no
    volume; the margin is not above 0.
    """

    def __init__(
        self,
        model: str | Path,
        joints: Sequence[str],
        *,
        obstacles: Sequence[Box] = (),
        margin_m: float = 0.01,
    ) -> None:
        if not 0 < margin_m < np.inf:
            raise SpecError(f"margin_m: got {margin_m}, expected above 0. Give a clearance in m.")
        for box in obstacles:
            _check(box)
        arm = _Arm(model, joints)
        self._n, self._margin, self._reach = len(joints), margin_m, arm.reach()
        self._few, self._many = (_Copies(arm, obstacles, margin_m, n) for n in (FEW, MANY))

    def first_contact(self, q: Floats, allowed: frozenset[str] = frozenset()) -> str:
        """Return the first pair in contact along the path q (N, n) [rad, m], or '' if none is.

        Poses are connected by straight lines in joint space. The path is checked at its first pose,
        at its last, and so often between that no point of a link moves more than `margin_m` from
        one checked pose to the next. So every contact on the way is detected, also of a thin part.

        allowed: pairs in contact at q[0], from `contacts_at`. Each is ignored as long as it is not
        closer than at q[0]: the arm may leave a contact, and may not go deeper.
        SpecError: the path is not (N, n) or not finite.
        """
        path = self._resampled(self._checked(q, 2))
        start = self._few.distances(path[:1])[0] if allowed and len(path) else {}
        limit = {pair: start.get(pair, self._margin) - DEEPER_M for pair in allowed}
        for at in range(0, len(path), MANY):
            part = path[at : at + MANY]
            copies = self._few if len(part) <= FEW else self._many
            for distances in copies.distances(part):
                for pair, distance in distances.items():
                    if distance < limit.get(pair, np.inf):
                        return pair
        return ""

    def contacts_at(self, q: Floats) -> tuple[str, ...]:
        """Return all pairs in contact in the pose q (n,) [rad, m]. SpecError: as first_contact."""
        return tuple(self._few.distances(self._checked(q, 1)[None])[0])

    def _checked(self, q: Floats, dims: int) -> Floats:
        q = np.asarray(q, np.float64)
        if q.ndim != dims or q.shape[-1] != self._n or not np.isfinite(q).all():
            right = f"(N, {self._n})" if dims == 2 else f"({self._n},)"
            raise SpecError(
                f"poses: got shape {q.shape}, expected {right} of finite numbers. Give one "
                "position per joint."
            )
        return q

    def _resampled(self, q: Floats) -> Floats:
        """Return poses (K, n) of the path between which no point moves more than the margin."""
        if len(q) < 2:
            return q
        moved = np.abs(np.diff(q, axis=0)) @ self._reach  # (N - 1,) [m] at most
        way = np.concatenate([[0.0], np.cumsum(moved)])
        steps = max(int(np.ceil(way[-1] / self._margin)), 1)
        at = np.linspace(0.0, way[-1], steps + 1)
        before = np.minimum(np.searchsorted(way, at, side="right") - 1, len(moved) - 1)
        share = (at - way[before]) / np.maximum(moved[before], 1e-12)
        out: Floats = q[before] + share[:, None] * (q[before + 1] - q[before])
        out[-1] = q[-1]
        return out


class _Arm:
    """The arm's chain with its collision geometry only, and the pairs of geoms to check."""

    def __init__(self, path: str | Path, joints: Sequence[str]) -> None:
        self._path = path
        self.model = model = self.compiled(self.copies(1))
        names = [model.joint(index).name[2:] for index in range(model.njnt)]
        if missing := [name for name in joints if name not in names]:
            right = f"expected one of {', '.join(names)}"
            raise SpecError(f"model {path}: got joint {missing[0]!r}, {right}. Correct its name.")
        if not model.ngeom:
            raise SpecError(
                f"model {path}: got no collision geometry, expected geoms named {PREFIX}... Add at "
                "least one capsule per link."
            )
        spec, driven = load_contacts(self._path), list(enumerate(joints))
        ties = [(tie.name1, tie.name2) for tie in spec.equalities if list(tie.data[:5]) == EQUAL]
        for one, other in [*ties, *(tie[::-1] for tie in ties)]:
            if one in joints and other in names and other not in joints:
                driven.append((list(joints).index(one), other))
        self._joints = [model.joint(f"0_{name}") for _, name in driven]
        self.at = [int(joint.qposadr[0]) for joint in self._joints]
        self.columns = [index for index, _ in driven]  # columns of q that go to `at`
        self.geoms = [model.geom(index).name[2:] for index in range(model.ngeom)]
        self.bodies = [model.body(int(body)).name[2:] for body in model.geom_bodyid]
        excluded = {frozenset((part.bodyname1, part.bodyname2)) for part in spec.excludes}
        # The link of each geom and the link before it; a body without joint is part of its parent.
        link = model.body_weldid[model.geom_bodyid]
        before = model.body_weldid[model.body_parentid[link]]
        self.moving = [int(geom) for geom in np.flatnonzero(link)]
        self.pairs = [
            (a, b)
            for a, b in itertools.combinations(range(model.ngeom), 2)
            if link[a] != link[b] and link[a] != before[b] and link[b] != before[a]
            and not (before[a] == before[b] > 0)
            and frozenset((self.bodies[a], self.bodies[b])) not in excluded
        ]  # fmt: skip

    def copies(self, count: int) -> Any:
        """Return a specification of so many copies at the same place. Names begin with 0_, 1_..."""
        import mujoco

        scene = mujoco.MjSpec()
        scene.memory = MEMORY
        scene.compiler.boundmass = scene.compiler.boundinertia = LIGHT
        for copy in range(count):
            spec = load_contacts(self._path)
            for part in [*spec.equalities, *spec.excludes]:
                part.delete()  # they may name bodies that are not part of the chain
            scene.compiler.degree = spec.compiler.degree
            scene.compiler.eulerseq = spec.compiler.eulerseq
            chain = spec.worldbody.first_body()
            scene.worldbody.add_frame().attach_body(chain, f"{copy}_", "")
        for geom in scene.geoms:
            geom.contype = geom.conaffinity = 0
        return scene

    def compiled(self, spec: Any) -> Any:
        """Return the model of a specification."""
        try:
            return spec.compile()
        except ValueError as error:
            raise SpecError(f"model {self._path}: {str(error).splitlines()[0]}") from None

    def reach(self) -> Floats:
        """Return (n,) how far each joint moves any point at most [m per rad, m per m]."""
        geoms = range(self.model.ngeom)
        far = [max(self._far(joint, geom) for geom in geoms) for joint in self._joints]
        slides = [joint.type[0] == SLIDE for joint in self._joints]
        return np.bincount(self.columns, np.where(slides, 1.0, far)).astype(np.float64)

    def _far(self, joint: Any, geom: int) -> float:
        """Return how far points of a geom are from a joint's axis at most; 0: it does not move.

        A sum of lengths along the chain, and of the ranges of sliding joints.
        """
        model, body = self.model, int(self.model.geom_bodyid[geom])
        offset, far = model.geom_pos[geom], float(model.geom_rbound[geom])
        while body != joint.bodyid[0]:
            if not body:
                return 0.0
            on, slides = model.jnt_bodyid == body, model.jnt_type == SLIDE
            far += float(np.linalg.norm(offset) + np.abs(model.jnt_range[on & slides]).sum())
            far += float(2.0 * np.linalg.norm(model.jnt_pos[on]))  # it turns about another point
            offset, body = model.body_pos[body], int(model.body_parentid[body])
        return far + float(np.linalg.norm(np.cross(joint.axis, offset - joint.pos)))


class _Copies:
    """So many copies of the arm in one model. MuJoCo checks the listed pairs only."""

    def __init__(self, arm: _Arm, boxes: Sequence[Box], margin: float, count: int) -> None:
        import mujoco

        self._kinematics, self._collision = mujoco.mj_kinematics, mujoco.mj_collision
        spec, box_type = arm.copies(count), mujoco.mjtGeom.mjGEOM_BOX
        for index, box in enumerate(boxes):
            low, high = np.asarray(box.low), np.asarray(box.high)
            geom = spec.worldbody.add_geom(name=f"box_{index}", type=box_type, contype=0)
            geom.pos, geom.size, geom.conaffinity = (low + high) / 2, (high - low) / 2, 0
        for copy in range(count):
            names = [f"{copy}_{name}" for name in arm.geoms]
            pairs = [(names[a], names[b]) for a, b in arm.pairs]
            pairs += [(names[a], f"box_{index}") for a in arm.moving for index in range(len(boxes))]
            for one, other in pairs:
                spec.add_pair(geomname1=one, geomname2=other, margin=margin, condim=1)
        self._model = arm.compiled(spec)
        self._data = mujoco.MjData(self._model)
        self._rows, self._at = self._data.qpos.reshape(count, -1), arm.at
        self._columns = arm.columns
        self._boxes, self._geoms = len(boxes), len(arm.geoms)  # in the model: boxes, then each copy
        named = [*(box.name for box in boxes), *arm.bodies]
        self._names = list(dict.fromkeys([*arm.bodies, *named]))  # in the order of the chain
        self._rank = [self._names.index(name) for name in named]

    def distances(self, q: Floats) -> list[dict[str, float]]:
        """Return the pairs in contact in each of up to `count` poses q (N, n): name -> [m]."""
        self._rows[: len(q), self._at] = q[:, self._columns]
        self._kinematics(self._model, self._data)
        self._collision(self._model, self._data)
        nearest: list[dict[tuple[int, int], float]] = [{} for _ in q]
        if self._data.ncon:
            contact = self._data.contact
            for geoms, distance in zip(contact.geom.tolist(), contact.dist.tolist()):
                copy = (max(geoms) - self._boxes) // self._geoms
                if copy < len(q):  # the others are in poses of earlier calls
                    pair = self._pair(*geoms)
                    nearest[copy][pair] = min(distance, nearest[copy].get(pair, distance))
        names = self._names
        return [
            {f"{names[a]} / {names[b]}": near[a, b] for a, b in sorted(near)} for near in nearest
        ]

    def _pair(self, *geoms: int) -> tuple[int, int]:
        """Return the places of two geoms' names in the order of the chain, the lower first."""
        boxes, count = self._boxes, self._geoms
        a, b = (self._rank[g if g < boxes else boxes + (g - boxes) % count] for g in geoms)
        return min(a, b), max(a, b)


def _check(box: Box) -> None:
    """Refuse what is not a box with a volume."""
    low, high = np.array(box.low, np.float64), np.array(box.high, np.float64)
    sides = high - low if low.shape == high.shape == (3,) else np.zeros(3)
    if not ((sides > 0) & (sides < np.inf)).all():
        raise SpecError(
            f"obstacle {box.name!r}: got low {list(box.low)}, high {list(box.high)}, expected three"
            " finite numbers each, low below high. Give its corners in metres."
        )
