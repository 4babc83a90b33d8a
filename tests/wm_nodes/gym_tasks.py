"""Small Gymnasium tasks, registered by importing this module: they need no library to draw.

`tests.wm_nodes.gym_tasks:Line-v0` is the id that imports it.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

MODULE = __name__
POSITION = spaces.Box(-np.inf, np.inf, (2,), np.float32)
PUSH = spaces.Box(np.float32([-1.0, 0.0]), np.float32([1.0, 2.0]))
CHOICE = spaces.Discrete(3, start=-1)
IMAGE = spaces.Box(0, 255, (20, 30, 3), np.uint8)
DICT = spaces.Dict(
    {
        "view": IMAGE,
        "arm": spaces.Dict({"angle": spaces.Box(-1, 1, (2,)), "wrist": spaces.Box(0, 1, ())}),
        "room": spaces.Discrete(4),
    }
)
TWO_VIEWS = spaces.Dict({"left": IMAGE, "right": spaces.Box(0, 255, (16, 16), np.uint8)})


class Line(gymnasium.Env[Any, Any]):
    """A point on a line: pushed by the first number of an action, or by -1, 0, 1.

    It terminates beyond 4.5, succeeds within 1.2 of 0, and draws its position as a grey value.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012

    def __init__(
        self,
        observed: spaces.Space[Any] = POSITION,
        actions: spaces.Space[Any] = PUSH,
        render_mode: str | None = None,
    ) -> None:
        self.observation_space, self.action_space = observed, actions
        self.render_mode = render_mode

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.x = float(self.np_random.uniform(-1, 1))
        return self.observation(self.observation_space), {}

    def step(self, action: Any) -> Any:
        assert self.action_space.contains(action), action
        push = float(action) if np.ndim(action) == 0 else float(action[0])
        self.x += push + 0.01 * float(self.np_random.normal())
        seen = self.observation(self.observation_space)
        return seen, -abs(self.x), abs(self.x) > 4.5, False, {"is_success": abs(self.x) < 1.2}

    def render(self) -> Any:
        assert self.render_mode == "rgb_array"
        return self.image((40, 60, 3))

    def image(self, shape: tuple[int, ...]) -> np.ndarray:
        return np.full(shape, np.clip(100 + 40 * self.x, 0, 255), np.uint8)

    def observation(self, space: spaces.Space[Any]) -> Any:
        if isinstance(space, spaces.Dict):
            return {key: self.observation(part) for key, part in space.items()}
        if isinstance(space, spaces.Discrete):
            return 2
        assert space.shape is not None
        if space.dtype == np.uint8:
            return self.image(space.shape)
        assert isinstance(space, spaces.Box)
        return np.clip(np.full(space.shape, self.x, np.float32), space.low, space.high)


class Blind(Line):
    """The same without images."""

    metadata = {"render_modes": []}  # noqa: RUF012


class Faulty(Line):
    """Fails in its third step: it raises, or what it returns is not finite in one part."""

    def __init__(self, fault: str, **settings: Any) -> None:
        super().__init__(**settings)
        self.fault, self.steps = fault, 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        if self.fault == "reset":
            raise ZeroDivisionError("no world")
        return super().reset(seed=seed, options=options)

    def step(self, action: Any) -> Any:
        self.steps += 1
        seen, reward, *ends = super().step(action)
        if self.steps < 3:
            return seen, reward, *ends
        if self.fault == "step":
            raise ZeroDivisionError("no world")
        if self.fault == "proprio":
            seen = np.full_like(seen, np.nan)
        return seen, np.inf if self.fault == "reward" else reward, *ends

    def render(self) -> Any:
        image = super().render()
        return np.full(image.shape, np.nan) if self.fault == "image" and self.steps > 2 else image


def register(name: str, kind: type[Line] = Line, **settings: Any) -> str:
    """Register a task and return its id with this module's name."""
    limit = settings.pop("max_episode_steps", 12)
    gymnasium.register(name, kind, max_episode_steps=limit, kwargs=settings)
    return f"{MODULE}:{name}"


LINE = register("Line-v0")
CHOICES = register("Choices-v0", actions=CHOICE)
PICTURE = register("Picture-v0", observed=IMAGE, actions=CHOICE)
MIXED = register("Mixed-v0", observed=DICT)
STEREO = register("Stereo-v0", observed=TWO_VIEWS)
BLIND = register("Blind-v0", Blind)
MANY = register("Many-v0", actions=spaces.MultiDiscrete([2, 3]))
ENDLESS = register("Endless-v0", actions=spaces.Box(-np.inf, np.inf, (2,), np.float32))
LISTS = register("Lists-v0", observed=spaces.Dict({"all": spaces.Sequence(POSITION)}))
FAULTY = {
    fault: register(f"Faulty-{fault}-v0", Faulty, fault=fault)
    for fault in ("reset", "step", "proprio", "reward", "image")
}
