"""The model of an arm as URDF: as it is where the model file is one, else converted from MJCF.

How MJCF is converted:
- links: the bodies of the arm, from the one that stands on the world on, in the frames that they
  have there; the site `hand`; `<camera>_optical_frame` of the requested cameras (z forward, y
  down). The root is that first body, or `world` where it does not stand at the world's origin.
- joints: the same names and zero positions. A joint beside its body's origin gets a link of its
  own, `<joint>_frame`. Ranges are the model's, else those of `limits`; velocities are those of
  `limits`. An equality of two joints becomes <mimic>. Ball and free joints become fixed ones.
- inertials and geometry: urdf_links.py.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from wm_nodes.robots.arm.geometry.model_file import is_urdf, load, read_urdf
from wm_nodes.robots.arm.geometry.pose import Pose, matrix, text
from wm_nodes.robots.arm.geometry.urdf_links import LinkParts, mesh_files, origin
from wm_nodes.robots.arm.safety.limits import ArmLimits, Floats
from wm_nodes.robots.robot import SpecError

WORLD = "world"
SLIDE, HINGE = 2, 3  # mjtJoint
OPTICAL = np.diag([1.0, -1.0, -1.0])  # MuJoCo's cameras look along -z, y up


@dataclass(frozen=True)
class Description:
    """A URDF: its text, its root link, and the link of the end effector."""

    text: str
    root: str
    end_effector: str


def describe(
    path: str | Path, hand: str, limits: ArmLimits, cameras: Sequence[str] = ()
) -> Description:
    """Return the URDF of a model file. SpecError, one line: the model cannot be read."""
    if is_urdf(path):
        urdf, robot = read_urdf(path)
        children = {child.get("link") for child in robot.findall("joint/child")}
        (root,) = {str(link.get("name")) for link in robot.findall("link")} - children
        return Description(urdf, root, hand)
    return _Writer(Path(path), hand, limits, cameras).description()


class _Writer:
    """Writes one MJCF model as URDF."""

    def __init__(self, path: Path, hand: str, limits: ArmLimits, cameras: Sequence[str]) -> None:
        self._limits = limits
        spec = load(path, hand)
        if hand not in {site.name for site in spec.sites}:
            raise SpecError(
                f"model {path}: got no site or body {hand!r}, expected the end effector's. "
                "Correct `hand:` in the robot's YAML."
            )
        files = mesh_files(spec, path)
        try:
            self._model = model = spec.compile()
        except ValueError as error:
            raise SpecError(f"model {path}: {str(error).splitlines()[0]}") from None
        self._parts = LinkParts(model, files)
        self._robot = ET.Element("robot", name=spec.modelname or path.stem)
        self._names: set[str] = set()
        self._mimics = dict(_mimics(model, limits.joints))
        site = model.site(hand).id
        first = int(model.site_bodyid[site])
        while first and model.body_parentid[first]:
            first = int(model.body_parentid[first])
        self._links: dict[int, str] = {}
        self.root = self._add_bodies(first)
        self.end_effector = self._add_end_effector(hand, site)
        self._add_cameras(cameras)

    def description(self) -> Description:
        ET.indent(self._robot)
        written = ET.tostring(self._robot, encoding="unicode", xml_declaration=True)
        return Description(written, self.root, self.end_effector)

    # Links --------------------------------------------------------------------------------------

    def _add_bodies(self, first: int) -> str:
        """Add the body `first` and all bodies on it; return the root link."""
        model, names = self._model, self._links
        stands = first and not model.body_jntnum[first] and self._body(first).zero
        if not stands:
            names[0] = self._link(WORLD)
        for body in range(first, model.nbody) if first else ():
            parent = int(model.body_parentid[body])
            if body == first and stands:
                names[body] = self._link(model.body(body).name or f"body_{body}", body)
            elif parent in names and (parent or body == first):
                names[body] = self._add_body(body, names[parent])
        root = names[first if stands else 0]
        names.setdefault(0, root)
        return root

    def _add_body(self, body: int, parent: str) -> str:
        """Add a body's joints and its link; return the link."""
        model, rest = self._model, self._body(body)
        name = self._link(model.body(body).name or f"body_{body}", body)
        start = int(model.body_jntadr[body])
        for joint in range(start, start + int(model.body_jntnum[body])):
            kind = int(model.jnt_type[joint])
            if kind not in (SLIDE, HINGE):
                continue
            place, axis = model.jnt_pos[joint], model.jnt_axis[joint]
            rest = rest @ Pose(place, np.eye(3)) @ _moved(kind, axis, -model.qpos0[self._at(joint)])
            back = Pose(-place, np.eye(3))
            last = joint == start + int(model.body_jntnum[body]) - 1
            title = model.joint(joint).name or f"joint_{joint}"
            child = name if last and back.zero else self._link(f"{title}_frame")
            self._moving(joint, title, parent, child, rest)
            rest, parent = back, child
        if parent != name:
            self._fixed(parent, name, rest)
        return name

    def _add_end_effector(self, hand: str, site: int) -> str:
        model = self._model
        pose = Pose(model.site_pos[site], matrix(model.site_quat[site]))
        body = self._links[int(model.site_bodyid[site])]
        if body == hand and pose.zero:
            return body
        name = self._link(hand)
        self._fixed(body, name, pose)
        return name

    def _add_cameras(self, cameras: Sequence[str]) -> None:
        model = self._model
        for camera in range(model.ncam):
            name, body = model.camera(camera).name, int(model.cam_bodyid[camera])
            if name in cameras and body in self._links:
                turn = matrix(model.cam_quat[camera]) @ OPTICAL
                link = self._link(f"{name}_optical_frame")
                self._fixed(self._links[body], link, Pose(model.cam_pos[camera], turn))

    def _link(self, name: str, body: int = 0) -> str:
        """Add a link; return its name, which nothing else has."""
        while name in self._names:
            name += "_"
        self._names.add(name)
        link = ET.SubElement(self._robot, "link", name=name)
        if body:
            self._parts.add(link, body)
        return name

    # Joints -------------------------------------------------------------------------------------

    def _fixed(self, parent: str, child: str, pose: Pose) -> None:
        self._joint(f"{child}_joint", "fixed", parent, child, pose)

    def _moving(self, joint: int, name: str, parent: str, child: str, pose: Pose) -> None:
        model, limits = self._model, self._limits
        low, high = model.jnt_range[joint]
        ends, velocity = bool(model.jnt_limited[joint]), 0.0
        if name in limits.joints:
            index = limits.joints.index(name)
            velocity = float(limits.velocity[index])
            if not ends and not limits.continuous[index]:
                ends, low, high = True, limits.low[index], limits.high[index]
        hinge = int(model.jnt_type[joint]) == HINGE
        kind = ("revolute" if ends else "continuous") if hinge else "prismatic"
        out = self._joint(name, kind, parent, child, pose)
        ET.SubElement(out, "axis", xyz=text(model.jnt_axis[joint]))
        limit = ET.SubElement(out, "limit", effort=text([self._effort(joint)]))
        limit.set("velocity", text([velocity]))
        if kind != "continuous":
            limit.set("lower", text([low]))
            limit.set("upper", text([high]))
        if joint in self._mimics:
            leader, factor, offset = self._mimics[joint]
            mimic = ET.SubElement(out, "mimic", joint=leader, multiplier=text([factor]))
            mimic.set("offset", text([offset]))

    def _joint(self, name: str, kind: str, parent: str, child: str, pose: Pose) -> ET.Element:
        out = ET.SubElement(self._robot, "joint", name=name, type=kind)
        ET.SubElement(out, "parent", link=parent)
        ET.SubElement(out, "child", link=child)
        origin(out, pose)
        return out

    def _effort(self, joint: int) -> float:
        """Return the greatest force or torque [N, N m] of a joint; 0: it has no limit."""
        model = self._model
        if model.jnt_actfrclimited[joint]:
            return float(np.abs(model.jnt_actfrcrange[joint]).max())
        drives = (model.actuator_trntype == 0) & (model.actuator_trnid[:, 0] == joint)
        forces = model.actuator_forcerange[drives & (model.actuator_forcelimited == 1)]
        return float(np.abs(forces).max(initial=0.0))

    def _at(self, joint: int) -> int:
        return int(self._model.jnt_qposadr[joint])

    def _body(self, body: int) -> Pose:
        return Pose(self._model.body_pos[body], matrix(self._model.body_quat[body]))


def _mimics(model: Any, joints: Sequence[str]) -> Iterator[tuple[int, tuple[str, float, float]]]:
    """Return joints that follow one of `joints`: (joint, (leader, factor, offset))."""
    for index in range(model.neq):
        a, b = int(model.eq_obj1id[index]), int(model.eq_obj2id[index])
        if model.eq_type[index] != 2 or b < 0 or not model.eq_active0[index]:  # two joints
            continue
        shift, factor, *more = model.eq_data[index, :5]
        if any(more) or not factor:
            continue
        shift += model.qpos0[model.jnt_qposadr[a]] - factor * model.qpos0[model.jnt_qposadr[b]]
        one, other = model.joint(a).name, model.joint(b).name
        if other in joints and one not in joints:
            yield a, (other, float(factor), float(shift))
        elif one in joints and other not in joints:
            yield b, (one, float(1 / factor), float(-shift / factor))


def _moved(kind: int, axis: Floats, value: float) -> Pose:
    """Return what a slide or hinge joint at `value` does."""
    if kind == SLIDE:
        return Pose(axis * value, np.eye(3))
    half = 0.5 * value
    return Pose(np.zeros(3), matrix(np.array([np.cos(half), *(np.sin(half) * axis)])))
