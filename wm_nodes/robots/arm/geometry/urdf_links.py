"""Inertial and geometry of a URDF's link, converted from a MuJoCo body.

Boxes, spheres, cylinders and meshes (stl, obj) are representable; a capsule becomes a cylinder and
two spheres; other shapes are left out. Collision geometry is that of the collision checker, and is
shown where a link has no other geometry.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from wm_nodes.robots.arm.geometry.model_file import PREFIX
from wm_nodes.robots.arm.geometry.pose import Pose, angles, matrix, text

MESHES = (".stl", ".obj")
SHOWN = 3  # groups below this one are shown, as in MuJoCo's own viewer
LEAST_KG = 1e-6


class LinkParts:
    """Adds bodies' inertials and geometry to links. `files`: those of meshes, by name."""

    def __init__(self, model: Any, files: dict[str, Path]) -> None:
        self._model, self._files = model, files

    def add(self, link: ET.Element, body: int) -> None:
        """Add a body's inertial and geometry to its link."""
        self._add_inertial(link, body)
        self._add_geometry(link, body)

    def _add_inertial(self, link: ET.Element, body: int) -> None:
        model, mass = self._model, float(self._model.body_mass[body])
        if mass < LEAST_KG:
            return
        out = ET.SubElement(link, "inertial")
        origin(out, Pose(model.body_ipos[body], matrix(model.body_iquat[body])))
        ET.SubElement(out, "mass", value=text([mass]))
        x, y, z = (text([value]) for value in model.body_inertia[body])
        ET.SubElement(out, "inertia", ixx=x, ixy="0", ixz="0", iyy=y, iyz="0", izz=z)

    def _add_geometry(self, link: ET.Element, body: int) -> None:
        model, start = self._model, int(self._model.body_geomadr[body])
        geoms = range(start, start + int(model.body_geomnum[body])) if start >= 0 else range(0)
        solid = [geom for geom in geoms if model.geom(geom).name.startswith(PREFIX)]
        visible = [g for g in geoms if g not in solid and model.geom_group[g] < SHOWN]
        for geom in visible or solid:
            for pose, kind, sizes in self._shapes(geom):
                self._add_shape(link, "visual", pose, kind, sizes).append(_colour(model, geom))
        for geom in solid:
            for pose, kind, sizes in self._shapes(geom):
                self._add_shape(link, "collision", pose, kind, sizes)

    @staticmethod
    def _add_shape(
        link: ET.Element, role: str, pose: Pose, kind: str, sizes: dict[str, str]
    ) -> ET.Element:
        out = ET.SubElement(link, role)
        origin(out, pose)
        ET.SubElement(ET.SubElement(out, "geometry"), kind, sizes)
        return out

    def _shapes(self, geom: int) -> Iterator[tuple[Pose, str, dict[str, str]]]:
        """Return the shapes of URDF that make up a geom; none if there are none."""
        import mujoco

        model, kinds = self._model, mujoco.mjtGeom
        pose = Pose(model.geom_pos[geom], matrix(model.geom_quat[geom]))
        kind, size = model.geom_type[geom], model.geom_size[geom]
        ball = {"radius": text(size[:1])}
        if kind == kinds.mjGEOM_BOX:
            yield pose, "box", {"size": text(2 * size)}
        elif kind == kinds.mjGEOM_SPHERE:
            yield pose, "sphere", ball
        elif kind in (kinds.mjGEOM_CYLINDER, kinds.mjGEOM_CAPSULE):
            yield pose, "cylinder", {**ball, "length": text([2 * size[1]])}
            if kind == kinds.mjGEOM_CAPSULE:
                for end in (-size[1], size[1]):
                    yield pose @ Pose(np.array([0, 0, end]), np.eye(3)), "sphere", ball
        elif kind == kinds.mjGEOM_MESH:
            mesh = int(model.geom_dataid[geom])
            file = self._files.get(model.mesh(mesh).name)
            if file is not None and file.suffix.lower() in MESHES:
                inner = Pose(model.mesh_pos[mesh], matrix(model.mesh_quat[mesh]))
                scale = text(model.mesh_scale[mesh])
                yield pose @ inner.inverse(), "mesh", {"filename": file.as_uri(), "scale": scale}


def origin(element: ET.Element, pose: Pose) -> None:
    """Add a pose to an element, if it is not zero."""
    if not pose.zero:
        ET.SubElement(element, "origin", xyz=text(pose.place), rpy=text(angles(pose.turn)))


def mesh_files(spec: Any, path: Path) -> dict[str, Path]:
    """Return the files of meshes by name; what has no file is taken out of the specification."""
    folder = path.absolute().parent / spec.meshdir
    files = {mesh.name: folder / mesh.file for mesh in spec.meshes if mesh.file}
    files = {name or file.stem: file for name, file in files.items()}
    gone = {name for name, file in files.items() if not file.is_file()}
    for geom in list(spec.geoms):
        if geom.meshname in gone:
            geom.delete()
    for mesh in list(spec.meshes):
        if (mesh.name or Path(mesh.file).stem) in gone:
            mesh.delete()
    for material in spec.materials:
        material.textures = [""] * len(material.textures)
    for texture in list(spec.textures):
        texture.delete()
    return files


def _colour(model: Any, geom: int) -> ET.Element:
    material = int(model.geom_matid[geom])
    rgba = model.geom_rgba[geom] if material < 0 else model.mat_rgba[material]
    name = "rgba_" + "".join(f"{round(255 * float(part)):02x}" for part in rgba)
    out = ET.Element("material", name=name)
    ET.SubElement(out, "color", rgba=text(np.round(rgba, 4)))
    return out
