"""PointMaze: a ball pushed through a U of corridors, DINO-WM's test world, in MuJoCo.

The physics are those of its release: 5 substeps of 10 ms, no gravity, a ball of 0.1 m on two slides
with damping 1, motors of gear 100 for forces in -1..1, speeds clipped to 5 m/s before each step.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from wm_datasets.spec import VectorSpec
from wm_nodes.robots.cameras.intrinsics import Intrinsics
from wm_nodes.robots.robot import Image, Observation, Vector
from wm_nodes.robots.sims import rendering
from wm_nodes.robots.sims.simulator import Simulator, StepOutcome, require_task

TASKS = ("maze-u",)
U_MAP = ("#####", "#OOO#", "###O#", "#OOO#", "#####")
ORIGIN = 1.2  # m: cell (i, j) is at (i, j) - 0.2 in the ball's coordinates
SUBSTEPS, STEP_S = 5, 0.01
FASTEST = 5.0  # m/s
START_SPEED = 5.23  # m/s, of starts and goals
SUCCESS_M = 0.5
REACH = (0.5, 3.1)  # m, where starts and goals lie

ACTION = VectorSpec(("force_x", "force_y"), ("1", "1"), (-1.0, -1.0), (1.0, 1.0))
PROPRIO = VectorSpec(
    ("x", "y", "vx", "vy"),
    ("m", "m", "m/s", "m/s"),
    (-1.0, -1.0, -6.0, -6.0),
    (5.0, 5.0, 6.0, 6.0),
)


def mjcf(maze: tuple[str, ...] = U_MAP) -> str:
    """Return the model: rows of the map lie along x, columns along y; # is a wall of one metre."""
    walls = "".join(
        f'<geom type="box" pos="{i + 1} {j + 1} 0.25" size="0.5 0.5 0.25" rgba="0.7 0.5 0.3 1"/>'
        for i, row in enumerate(maze)
        for j, cell in enumerate(row)
        if cell == "#"
    )
    middle = (len(maze) + 1) / 2
    return f"""
<mujoco model="point_maze">
  <compiler inertiafromgeom="true" angle="radian" coordinate="local"/>
  <option timestep="{STEP_S}" gravity="0 0 0" integrator="Euler"/>
  <default><geom density="1000" friction="0.5 0.1 0.1" margin="0.002"/></default>
  <visual><headlight ambient="0.6 0.6 0.6" diffuse="0.4 0.4 0.4" specular="0 0 0"/></visual>
  <worldbody>
    <light directional="true" pos="0 0 5" dir="0 0 -1"/>
    <camera name="top" pos="{middle} {middle} 6" euler="0 0 -1.5707963" fovy="42"/>
    <geom type="plane" pos="{middle} {middle} 0" size="4 4 0.1" rgba="0.2 0.3 0.4 1"
          contype="0" conaffinity="0"/>
    {walls}
    <body name="ball" pos="{ORIGIN} {ORIGIN} 0.1">
      <joint name="x" type="slide" axis="1 0 0" damping="1"/>
      <joint name="y" type="slide" axis="0 1 0" damping="1"/>
      <geom name="ball" type="sphere" size="0.1" rgba="0 0 0 0"/>
      <site name="ball" pos="0 0 0.1" size="0.2" rgba="0.3 0.9 0.3 1"/>
    </body>
  </worldbody>
  <actuator>
    <motor joint="x" gear="100" ctrllimited="true" ctrlrange="-1 1"/>
    <motor joint="y" gear="100" ctrllimited="true" ctrlrange="-1 1"/>
  </actuator>
</mujoco>"""


class Physics:
    """The ball alone: states are (x, y, vx, vy)."""

    def __init__(self) -> None:
        rendering.choose_gl()
        import mujoco

        self._mujoco = mujoco
        self.model = mujoco.MjModel.from_xml_string(mjcf())
        self.data = mujoco.MjData(self.model)

    def put(self, state: npt.ArrayLike) -> None:
        """Set (x, y, vx, vy)."""
        now = np.asarray(state, np.float64)
        self._mujoco.mj_resetData(self.model, self.data)
        self.data.qpos[:], self.data.qvel[:] = now[:2], now[2:]
        self._mujoco.mj_forward(self.model, self.data)

    def step(self, force: npt.ArrayLike) -> None:
        """Push for one simulator step of 50 ms."""
        self.data.qvel[:] = np.clip(self.data.qvel, -FASTEST, FASTEST)
        self.data.ctrl[:] = force
        self._mujoco.mj_step(self.model, self.data, SUBSTEPS)
        self._mujoco.mj_forward(self.model, self.data)

    @property
    def state(self) -> Vector:
        state: Vector = np.concatenate([self.data.qpos, self.data.qvel]).astype(np.float32)
        return state


class PointMaze(Simulator):
    """Episodes of `time_limit` agent steps from random places to random places of the U, both with
    random speeds; starts within success of the goal are drawn again. The reward is minus the
    distance to the goal in m; success within 0.5 m."""

    def __init__(
        self,
        task: str = "maze-u",
        *,
        seed: int = 0,
        size: int = 64,
        action_repeat: int = 1,
        time_limit: int = 100,
        render: str = "auto",
    ) -> None:
        super().__init__(seed=seed, time_limit=time_limit, action_repeat=action_repeat)
        require_task(task, TASKS)
        self._physics = Physics()
        self._cameras = rendering.Cameras(self._physics.model, ("top",), size, render)
        self._goal_view: Observation | None = None
        self.spec = self._spec(
            "point_maze",
            task,
            step_s=SUBSTEPS * STEP_S,
            cameras=self._cameras.shapes,
            proprio=PROPRIO,
            action=ACTION,
            extra={"camera": "top", **self._cameras.extra},
        )

    @property
    def privileged_state(self) -> npt.NDArray[np.float64]:
        """Return the state of the ball and of the goal, (x, y, vx, vy) each [m, m/s]."""
        return np.concatenate([self._physics.data.qpos, self._physics.data.qvel, self._goal])

    def goal(self) -> Observation:
        """Return the image at the goal; the ball is put there and back."""
        self.observe()
        if self._goal_view is None:
            before = np.concatenate([self._physics.data.qpos, self._physics.data.qvel])
            self._physics.put(self._goal)
            self._goal_view = self._goal_observation(self._images(), self._physics.state)
            self._physics.put(before)
        return self._goal_view

    def intrinsics(self) -> Mapping[str, Intrinsics]:
        return self._cameras.intrinsics(self._physics.data)

    def _begin(self, seed: int) -> None:
        random = np.random.default_rng(seed)
        start, self._goal = draw_state(random), draw_state(random)
        while _apart(start, self._goal) < SUCCESS_M:  # drawn again: it would succeed without a move
            start = draw_state(random)
        self._goal_view = None
        self._physics.put(start)

    def _simulate(self, action: Vector) -> StepOutcome:
        self._physics.step(action)
        distance = _apart(self._physics.state, self._goal)
        return StepOutcome(reward=-distance, success=distance < SUCCESS_M)

    def _proprio(self) -> Vector:
        return np.clip(self._physics.state, PROPRIO.low, PROPRIO.high).astype(np.float32)

    def _images(self) -> dict[str, Image]:
        return self._cameras.images(self._physics.data)

    def _free(self) -> None:
        self._cameras.close()


def is_free(place: npt.ArrayLike) -> bool:
    """May the ball's middle be at (x, y)?"""
    x, y = np.asarray(place, np.float64) + ORIGIN - 1.0  # cell (i, j) is centred at i, j
    radius = 0.1
    for i, row in enumerate(U_MAP):
        for j, cell in enumerate(row):
            if cell == "#" and abs(x - i) < 0.5 + radius and abs(y - j) < 0.5 + radius:
                return False
    return True


def draw_state(random: np.random.Generator) -> npt.NDArray[np.float64]:
    """Draw a free place of the U and a speed."""
    while True:
        place = random.uniform(*REACH, size=2)
        if is_free(place):
            return np.concatenate([place, random.uniform(-START_SPEED, START_SPEED, 2)])


def _apart(state: npt.NDArray[Any], other: npt.NDArray[Any]) -> float:
    """Distance of two states' places [m]."""
    return float(np.linalg.norm(state[:2] - other[:2]))
