"""Reads the model file of an arm, MJCF or URDF, into a MuJoCo specification.

A URDF is read as it is but for these:
- static links stay links of their own (MuJoCo would fuse them with their parents);
- visual geometry is left out, so meshes of it need not exist;
- collision geometry is named `collision_<link>_<number>`, as the collision checker needs it;
- <mimic> becomes an equality of two joints.
"""

from __future__ import annotations

import os
import re
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote

from wm_nodes.robots.robot import SpecError
from wm_nodes.robots.sims.rendering import choose_gl

PREFIX = "collision_"  # of names of geoms for the collision checker
LIGHT = 1e-3  # [kg, kg m²] of links without any: only dynamics would care
MESHES = (".stl", ".obj", ".msh")  # what MuJoCo reads
EXPECTED = "expected MJCF or URDF"
CHAIN = "geoms actuators sensors equalities meshes cameras lights".split()
CONTACTS = "actuators sensors cameras lights".split()


class Mimic(NamedTuple):
    """A joint that follows another: position = factor * the leader's + offset."""

    follower: str
    leader: str
    factor: float
    offset: float


def load(path: str | Path, hand: str = "") -> Any:
    """Return the MjSpec of a model file with all its parts.

    If `hand` names a body (a link of a URDF) and no site, the body gets a site of that name at its
    origin. SpecError, one line: the file cannot be read, or a mesh of a URDF's collision geometry
    is not found.
    """
    return _loaded(path, hand, ("visual",))


def load_chain(path: str | Path, hand: str = "") -> Any:
    """Return the MjSpec without geometry: bodies, joints and sites. Meshes need not exist."""
    spec = _loaded(path, hand, ("visual", "collision", "inertial"))
    for part in [part for kind in CHAIN for part in getattr(spec, kind)]:
        part.delete()
    spec.compiler.boundmass = spec.compiler.boundinertia = LIGHT
    return spec


def load_links(urdf: str) -> tuple[Any, list[Mimic]]:
    """Return the MjSpec of a URDF's text without geometry, and its joints that follow others."""
    import mujoco

    prepared, mimics = _prepared(
        urdf, Path("robot_description"), ("visual", "collision", "inertial")
    )
    spec = mujoco.MjSpec.from_string(prepared)
    spec.compiler.boundmass = spec.compiler.boundinertia = LIGHT
    return spec, mimics


def load_contacts(path: str | Path) -> Any:
    """Return the MjSpec with collision geometry only: geoms whose names begin with PREFIX."""
    import mujoco

    spec = _loaded(path, "", ("visual", "inertial"))
    for geom in list(spec.geoms):
        geom.mass = LIGHT
        if not geom.name.startswith(PREFIX):
            geom.delete()
    used = {geom.meshname for geom in spec.geoms}
    for mesh in list(spec.meshes):
        if mesh.name not in used:
            mesh.delete()
        else:
            mesh.inertia = mujoco.mjtMeshInertia.mjMESH_INERTIA_CONVEX  # also of open meshes
    for part in [part for kind in CONTACTS for part in getattr(spec, kind)]:
        part.delete()
    spec.compiler.boundmass = spec.compiler.boundinertia = LIGHT
    return spec


def is_urdf(path: str | Path) -> bool:
    """Return whether the file's root element is <robot>. SpecError if it cannot be read."""
    return _root_tag(_text(path)) == "robot"


def read_urdf(path: str | Path) -> tuple[str, ET.Element]:
    """Return a URDF as text and as its root element.

    SpecError: it is no XML, a xacro file, or does not have exactly one root link.
    """
    text = _text(path)
    return text, _robot(text, path)


def _robot(text: str, path: str | Path) -> ET.Element:
    try:
        robot = ET.fromstring(text)
    except (ET.ParseError, ValueError) as error:
        raise _wrong(path, f"{error}", "XML", "Correct the file.") from None
    if "xacro:" in text or "http://www.ros.org/wiki/xacro" in text:
        raise _wrong(path, "a xacro file", "URDF", "Expand it: `xacro FILE > arm.urdf`.")
    links = [link.get("name", "") for link in robot.findall("link")]
    children = {child.get("link", "") for child in robot.findall("joint/child")}
    parents = {parent.get("link", "") for parent in robot.findall("joint/parent")}
    if missing := sorted((children | parents) - set(links)):
        raise _wrong(path, f"a joint of {missing[0]!r}", "a link of the file", "Add that link.")
    roots = [name for name in links if name not in children]
    if len(roots) != 1:
        got = f"{len(roots)} root links" + f" ({', '.join(roots)})" * bool(roots)
        raise _wrong(path, got, "one link that is no joint's child", "Join all links by joints.")
    if twice := [name for name, count in Counter(links).items() if count > 1]:
        raise _wrong(path, f"link {twice[0]!r} twice", "each link once", "Rename one.")
    return robot


def mesh_file(name: str, urdf: Path) -> Path | None:
    """Return the file of a mesh's name in a URDF; None if there is none.

    `package://PACKAGE/FILE` is looked up in the packages of the sourced ROS, then in folders named
    PACKAGE above and beside the URDF, then relative to the URDF; `file://` is a path; anything else
    is relative to the URDF.
    """
    return next(
        (path for path in _candidates(name, urdf.absolute().parent) if path.is_file()), None
    )


def _loaded(path: str | Path, hand: str, left_out: tuple[str, ...]) -> Any:
    choose_gl()  # MuJoCo reads it when it is imported
    import mujoco

    mimics: list[Mimic] = []
    try:
        if is_urdf(path):
            text, mimics = _prepared(_text(path), Path(path), left_out)
            spec = mujoco.MjSpec.from_string(text)
        else:
            spec = mujoco.MjSpec.from_file(str(path))
    except SpecError:
        raise
    except (ValueError, OSError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise SpecError(
            f"model {path}: got {reason!r}, {EXPECTED}. Correct the file or its path."
        ) from None
    for follower, leader, factor, offset in mimics:
        tie = spec.add_equality(type=mujoco.mjtEq.mjEQ_JOINT)
        tie.objtype = mujoco.mjtObj.mjOBJ_JOINT
        tie.name1, tie.name2 = follower, leader
        tie.data[:5] = offset, factor, 0, 0, 0
    if hand and hand not in {site.name for site in spec.sites}:
        body = next((body for body in spec.bodies if body.name == hand), None)
        if body is not None:
            body.add_site(name=hand)
    return spec


def _prepared(text: str, path: Path, left_out: tuple[str, ...]) -> tuple[str, list[Mimic]]:
    """Return a URDF's text for MuJoCo, and its joints that follow others."""
    robot = _robot(text, path)
    for link in robot.findall("link"):
        for part in [part for kind in left_out for part in link.findall(kind)]:
            link.remove(part)
        for number, part in enumerate(link.findall("collision"), 1):
            part.set("name", f"{PREFIX}{link.get('name')}_{number}")
            for mesh in part.iterfind("geometry/mesh"):
                mesh.set(
                    "filename",
                    _collision_mesh(mesh.get("filename", ""), link.get("name", ""), path),
                )
    for part in robot.findall("mujoco"):
        robot.remove(part)
    options = ET.SubElement(ET.SubElement(robot, "mujoco"), "compiler")
    options.set("fusestatic", "false")
    options.set("discardvisual", "false")  # there is none, and collision geoms are to stay
    options.set("strippath", "false")
    options.set("balanceinertia", "true")
    _put_moving_first(robot)
    return ET.tostring(robot, encoding="unicode"), list(_mimics(robot, path))


def _put_moving_first(robot: ET.Element) -> None:
    """Let the part of the world with most moving joints be the model's first body: the arm."""
    below: dict[str, list[ET.Element]] = {}
    for joint in robot.findall("joint"):
        parent = joint.find("parent")
        below.setdefault("" if parent is None else parent.get("link", ""), []).append(joint)

    def moving(joint: ET.Element) -> int:
        count, todo = 0, [joint]
        while todo:
            here = todo.pop()
            count += here.get("type") != "fixed"
            child = here.find("child")
            todo += below.pop("" if child is None else child.get("link", ""), [])
        return count

    placed = below.pop("world", [])  # MuJoCo's world: its children are bodies beside each other
    for joint in sorted(placed, key=moving):
        robot.remove(joint)
        robot.insert(0, joint)


def _mimics(robot: ET.Element, path: Path) -> Iterator[Mimic]:
    names = {joint.get("name", "") for joint in robot.findall("joint")}
    for joint in robot.findall("joint"):
        mimic = joint.find("mimic")
        if mimic is None:
            continue
        leader = mimic.get("joint", "")
        if leader not in names:
            right = f"one of {', '.join(sorted(names))}"
            raise _wrong(path, f"<mimic joint={leader!r}>", right, "Correct the name.")
        try:
            factor, offset = float(mimic.get("multiplier", 1)), float(mimic.get("offset", 0))
        except ValueError as error:
            raise _wrong(path, f"<mimic>: {error}", "numbers", "Correct it.") from None
        yield Mimic(joint.get("name", ""), leader, factor, offset)


def _collision_mesh(name: str, link: str, path: Path) -> str:
    """Return the path of a mesh of collision geometry."""
    file = mesh_file(name, path)
    if file is None:
        raise _wrong(
            path, f"mesh {name!r} of link {link!r}, which is no file",
            "a file beside the model or in a package of the sourced ROS",
            "Copy the meshes there, or set `collision: {check: false}`.",
        )  # fmt: skip
    if file.suffix.lower() not in MESHES:
        raise _wrong(
            path, f"mesh {file.name!r} of link {link!r}", f"one of {', '.join(MESHES)}",
            "Convert it, or set `collision: {check: false}`.",
        )  # fmt: skip
    return str(file)


def _candidates(name: str, folder: Path) -> Iterator[Path]:
    if name.startswith("package://"):
        package, _, rest = unquote(name[len("package://") :]).partition("/")
        for prefix in filter(None, os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep)):
            yield Path(prefix) / "share" / package / rest
        for above in (folder, *folder.parents):
            yield from (above / rest,) if above.name == package else (above / package / rest,)
        yield folder / rest
    elif name.startswith("file://"):
        yield Path(unquote(name[len("file://") :]))
    elif name:
        yield folder / name


def _text(path: str | Path) -> str:
    try:
        return Path(path).read_text("utf-8", errors="replace")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise SpecError(
            f"model {path}: got {reason!r}, {EXPECTED}. Correct the file or its path."
        ) from None


def _root_tag(text: str) -> str:
    match = re.search(r"<\s*([A-Za-z_][\w.-]*)", re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL))
    return match[1] if match else ""


def _wrong(path: str | Path, got: str, expected: str, fix: str) -> SpecError:
    return SpecError(f"model {path}: got {got}, expected {expected}. {fix}")
