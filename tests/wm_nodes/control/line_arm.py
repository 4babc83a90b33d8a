"""A point on a line that is called in real time: the smallest robot for the control loop."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy.typing as npt

from tests.wm_nodes.point_robot import PointRobot
from wm_nodes.robots.robot import Observation, RealtimeRobot


class LineArm(RealtimeRobot):
    """Its attributes are its responses; `calls` has the calls except those of every period."""

    def __init__(self, time_limit: int = 5) -> None:
        self._point = PointRobot(time_limit=time_limit)
        self.spec = self._point.spec
        self.calls: list[tuple[Any, ...]] = []
        self.ready, self.rest, self.watchdog, self.done = True, True, False, False
        self.waiting, self.refuses_clear = "", ""
        self.latches: dict[str, str] = {}
        self.fault_texts: dict[str, str] = {}
        self.image_age = 0.0
        self.fails: Exception | None = None

    @property
    def tick_s(self) -> float:
        return 0.002

    def reset(self, seed: int | None = None) -> Observation:
        self.calls.append(("reset", seed))
        return self._point.reset(seed)

    def observe(self) -> Observation:
        return self._point.observe()

    def act(self, action: npt.ArrayLike) -> Observation:
        self.done = False
        return self._point.act(action)

    def stop(self) -> None:
        self.calls.append(("stop",))

    def close(self) -> None:
        self._point.close()

    def prepare(self, seed: int) -> None:
        self.calls.append(("prepare", seed))

    def waiting_for(self) -> str:
        return self.waiting

    def sense(self) -> None:
        if self.fails:
            raise self.fails

    def tick(
        self, action: npt.ArrayLike | None, made_s: float = float("inf"), age_s: float = 0.0
    ) -> bool:
        return self.done

    def complete(self) -> bool:
        return self.done

    def go_home(self) -> bool:
        return True

    def end_episode(self) -> None:
        self.calls.append(("end_episode",))

    def driver_ready(self) -> bool:
        return self.ready

    def at_rest(self) -> bool:
        return self.rest

    def stopped(self) -> bool:
        return self.watchdog

    def latched(self) -> Mapping[str, str]:
        return dict(self.latches)

    def latch(self, name: str, why: str) -> None:
        self.latches[name] = why

    def clear(self) -> str:
        if not self.refuses_clear:
            self.latches.clear()
        return self.refuses_clear

    def invalidate_plans(self, now_s: float) -> None:
        pass

    def release_driver(self) -> None:
        self.calls.append(("release",))

    def take_driver(self, switched: bool) -> None:
        self.calls.append(("take", switched))

    def halt(self) -> None:
        self.calls.append(("halt",))

    def image_age_s(self) -> float:
        return self.image_age

    def faults(self) -> Mapping[str, str]:
        return dict(self.fault_texts)

    def facts(self) -> Mapping[str, object]:
        return {"joints": 1}
