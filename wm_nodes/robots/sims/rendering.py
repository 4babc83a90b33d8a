"""MuJoCo images: which GL, which quality preset, which way is up.

Presets: `full` is MuJoCo's default (shadows, reflections, antialiasing); `fast` leaves these out,
about 10 ms instead of 120 ms for a 64x64 frame where GL runs in software. Pixels differ slightly,
so a log has one preset only. `auto` selects full on a GPU, else fast; `none` renders no images.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib
import os
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from wm_nodes.robots.cameras.intrinsics import Intrinsics
from wm_nodes.robots.robot import Image, RenderError

if TYPE_CHECKING:
    import mujoco

PRESETS = ("auto", "fast", "full", "none")
SOFTWARE_GL = ("llvmpipe", "softpipe", "swrast", "swiftshader", "software")
HELP = (
    "Use MUJOCO_GL=egl with `apt-get install libegl1 libgl1 libglx-mesa0 libegl-mesa0`, "
    "MUJOCO_GL=osmesa with `apt-get install libosmesa6`, or render=none."
)


def choose_gl() -> str:
    """Set MUJOCO_GL to egl where it is not set and there is no display; return the choice.

    MuJoCo reads the variable when it is imported, so call this first.

    Mesa's shader cache on disk is turned off where it is not set: its thread has the lowest
    priority, and a process that ends on a busy machine waits for it, longer than a launcher does.
    """
    os.environ.setdefault("MESA_SHADER_CACHE_DISABLE", "true")
    if chosen := os.environ.get("MUJOCO_GL"):
        return chosen
    display = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    if "mujoco" in sys.modules:
        return "glfw (mujoco was imported before MUJOCO_GL was set)"
    if sys.platform == "linux" and not display:
        os.environ["MUJOCO_GL"] = "egl"
    return os.environ.get("MUJOCO_GL", "glfw")


def load_triton() -> None:
    """Load triton's library, where it is installed, before GL loads the system's LLVM.

    torch loads it with the first optimizer. The process is killed by SIGSEGV where that happens
    after Mesa has rendered in software (torch 2.15, triton 3.9, LLVM 15).
    """
    with contextlib.suppress(ImportError):
        importlib.import_module("triton._C.libtriton")


def gl_renderer() -> str:
    """Return the name of the GL renderer, such as `llvmpipe (LLVM 15.0.6, 256 bits)`."""
    gl = choose_gl()
    load_triton()
    try:
        from mujoco.gl_context import GLContext
        from OpenGL import GL

        context = GLContext.__new__(GLContext)
        context._context = None  # else a failed __init__ makes its __del__ print a traceback
        context.__init__(16, 16)
        context.make_current()
        name = GL.glGetString(GL.GL_RENDERER)
        context.free()
    except Exception as error:  # the GL bindings raise anything, AttributeError included
        raise _no_gl(gl, error) from None
    if not name:
        raise _no_gl(gl, RuntimeError("GL gives no renderer name"))
    return str(name.decode())


def resolve(preset: str) -> tuple[str, str]:
    """Return (preset, GL renderer) with `auto` decided: full on a GPU, fast in software."""
    if preset not in PRESETS:
        raise RenderError(f"render: got {preset!r}, expected one of {', '.join(PRESETS)}.")
    if preset == "none":
        return "none", "none"
    name = gl_renderer()
    software = any(word in name.lower() for word in SOFTWARE_GL)
    return (("fast" if software else "full") if preset == "auto" else preset), name


class Cameras:
    """The cameras of a simulator on MuJoCo, all of one size and quality.

    names: of the model's cameras; a mapping gives each another name, under which its images are
    found: {name: the model's own}. size: side of the square images [px]. preset: as in `PRESETS`;
    with "none" there is no camera, and no GL is needed. RenderError: an unknown camera or preset, a
    size out of range, no GL.
    """

    def __init__(
        self,
        model: mujoco.MjModel,
        names: Sequence[str] | Mapping[str, str],
        size: int,
        preset: str,
    ) -> None:
        self.preset, self.gl_renderer = resolve(preset)
        self._cameras: dict[str, CameraRenderer] = {}
        own = names if isinstance(names, Mapping) else {name: name for name in names}
        for name, camera in own.items() if self.preset != "none" else ():
            self._cameras[name] = CameraRenderer(model, camera, size, self.preset)
        self.shapes = {name: (size, size, 3) for name in self._cameras}

    @property
    def extra(self) -> dict[str, str]:
        """Return how the images are rendered, for the specification's `extra`."""
        return {"render": self.preset, "gl_renderer": self.gl_renderer}

    def images(self, data: mujoco.MjData) -> dict[str, Image]:
        """Return the image of each camera; positions must be up to date (mj_forward)."""
        return {name: camera.render(data) for name, camera in self._cameras.items()}

    def intrinsics(self, data: mujoco.MjData) -> dict[str, Intrinsics]:
        """Return the intrinsics of the cameras that are symmetric pinholes."""
        all_cameras = {name: camera.intrinsics(data) for name, camera in self._cameras.items()}
        return {name: known for name, known in all_cameras.items() if known is not None}

    def close(self) -> None:
        """Free the GL contexts."""
        for camera in self._cameras.values():
            camera.close()


class CameraRenderer:
    """Images of one camera of a MuJoCo model: (size, size, 3) uint8, upright.

    Meta-World's corner cameras hang upside down. Their rows are reversed (`img[::-1]`), which gives
    the pixels that the Masked World Models release trained on: upright, mirrored left to right.
    """

    def __init__(self, model: mujoco.MjModel, camera: str, size: int, preset: str) -> None:
        import mujoco

        names = [model.camera(index).name for index in range(model.ncam)]
        if camera not in names:
            raise RenderError(f"camera: got {camera!r}, expected one of {', '.join(names)}.")
        if not 8 <= size <= 2048:
            raise RenderError(f"size: got {size}, expected 8 to 2048 pixels.")
        self.camera, self._model, self._size = camera, model, size
        self._intrinsics: dict[bool, Intrinsics] = {}
        quality = model.vis.quality
        if preset == "fast":  # read when the renderer is created
            quality.offsamples = 0
            quality.shadowsize = 0
        model.vis.global_.offwidth = max(size, model.vis.global_.offwidth)
        model.vis.global_.offheight = max(size, model.vis.global_.offheight)
        try:
            self._renderer = mujoco.Renderer(model, size, size)
        except Exception as error:
            raise _no_gl(choose_gl(), error) from None
        atexit.register(self._renderer.close)  # before EGL ends, or MuJoCo prints tracebacks
        if preset == "fast":
            flags = self._renderer.scene.flags
            flags[mujoco.mjtRndFlag.mjRND_SHADOW] = 0
            flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = 0

    def render(self, data: mujoco.MjData) -> Image:
        """Return the image of `data`, whose positions must be up to date (mj_forward)."""
        self._renderer.update_scene(data, camera=self.camera)
        image = self._renderer.render()
        return np.ascontiguousarray(image[::-1] if self._hangs(data) else image)

    def intrinsics(self, data: mujoco.MjData) -> Intrinsics | None:
        """Return the intrinsics of the images; None: a lens that is no symmetric pinhole."""
        upturned = self._hangs(data)
        if upturned not in self._intrinsics:
            model, camera, size = self._model, self._model.camera(self.camera).id, self._size
            if model.cam_sensorsize[camera].any() or model.cam_orthographic[camera]:
                return None
            fovy = float(model.cam_fovy[camera])
            self._intrinsics[upturned] = Intrinsics.pinhole(size, size, fovy, upturned=upturned)
        return self._intrinsics[upturned]

    def close(self) -> None:
        """Free the GL context."""
        atexit.unregister(self._renderer.close)
        self._renderer.close()

    def _hangs(self, data: mujoco.MjData) -> bool:
        """Does the camera's up axis point at the ground?"""
        return bool(data.camera(self.camera).xmat[7] < -0.1)  # z of the camera's y axis


def _no_gl(gl: str, error: Exception) -> RenderError:
    reason = str(error).strip().partition("\n")[0].partition(". ")[0] or type(error).__name__
    return RenderError(f"no GL for images: MUJOCO_GL={gl} gives {reason!r}. {HELP}")
