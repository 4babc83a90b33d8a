"""A robomimic file into a log."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from wm_datasets.errors import LogSpecError
from wm_datasets.formats.base import (
    CorruptInputError,
    FormatError,
    Importer,
    Options,
    need,
    rows_of,
)
from wm_datasets.formats.robomimic.layout import (
    BROKEN,
    float32,
    has_per_step,
    is_empty,
    is_image,
    is_vector,
    own_spec,
    padded,
    read_actions,
    read_observation,
    read_per_step,
    vector_spec,
    words,
)
from wm_datasets.spec import LogSpec, VectorSpec

_UPSIDE_DOWN = ("libero", "robosuite")  # their images begin at the lower left, as OpenGL's do


class Import(Importer):
    """A robomimic file; each demo is an episode. Row T of T actions comes from next_obs."""

    uses = frozenset({"robot", "task", "period_s"})

    def __init__(self, source: Path, options: Options) -> None:
        self._h5py, self._path = need("h5py"), source
        try:
            self._file = self._h5py.File(source, "r")
        except OSError as error:
            raise CorruptInputError(source, f"it is not a readable HDF5 file ({error}).") from error
        try:
            self._open(options)
        except BaseException as error:
            self._file.close()
            if isinstance(error, LogSpecError):
                raise FormatError(f"{source}: {error}") from error
            if isinstance(error, BROKEN):
                raise CorruptInputError(
                    source, f"it is not robomimic's layout ({error})."
                ) from error
            raise

    def rows(self, key: str) -> Iterator[dict[str, Any]]:
        try:
            yield from self._read(self._data[key])
        except BROKEN as error:
            raise CorruptInputError(self._path, f"{key}: {error}") from error

    def close(self) -> None:
        self._file.close()

    # What the log will be ----------------------------------------------------------------------

    def _open(self, options: Options) -> None:
        data = self._file.get("data")
        if not isinstance(data, self._h5py.Group) or not len(data):
            raise FormatError(
                f"{self._path}: no group 'data' with demos, so it is not robomimic's layout."
            )
        self._data = data
        keys = sorted(data, key=lambda k: [int(n) for n in re.findall(r"\d+", k)])
        empty = [k for k in keys if is_empty(data[k])]
        self.keys = [k for k in keys if k not in empty]
        self.losses = []
        if empty:
            self.losses.append(f"demos without any action: {', '.join(empty)}")
        first = self._first_whole()
        self._dones, self._rewards = (has_per_step(first, name) for name in ("dones", "rewards"))
        obs = first["obs"]
        own = data.attrs.get("wm_log")
        self._terminals = self._dones and own is None and self._some_end_without_done()
        self._cameras = sorted(k for k in obs if is_image(obs[k]))
        self._vectors = {k: math.prod(obs[k].shape[1:]) for k in sorted(obs) if is_vector(obs[k])}
        if own is not None:
            options.refuse_beside_spec(self._path)
        self.spec = self._foreign_spec(first, options) if own is None else own_spec(own)
        if own is None:
            self._add_losses(first)

    def _first_whole(self) -> Any:
        for key in self.keys:
            demo = self._data[key]
            if isinstance(demo, self._h5py.Group) and isinstance(demo.get("obs"), self._h5py.Group):
                try:
                    read_actions(demo)
                except BROKEN:
                    continue  # rows() of this key raises it
                return demo
        raise FormatError(
            f"{self._path}: no demo has 'obs' and numbers 'actions' (T, A), so it is not "
            "robomimic's layout."
        )

    def _foreign_spec(self, demo: Any, options: Options) -> LogSpec:
        env = self._environment()
        kwargs = env["env_kwargs"] if isinstance(env.get("env_kwargs"), dict) else {}
        robots, name = kwargs.get("robots"), env.get("env_name")
        known = name if isinstance(name, str) and name else "unknown"
        self.upside_down = self._who_renders_upside_down(known)
        return LogSpec(
            robot=options.robot or "+".join(words(robots)) or "unknown",
            task=options.task or known,
            control_period_s=options.period_s or self._period(kwargs),
            cameras={k: demo["obs"][k].shape[1:] for k in self._cameras},
            proprio=vector_spec(self._vectors) if self._vectors else None,
            action=self._action_spec(read_actions(demo).shape[1]),
            extra={
                "robomimic": {"env_args": env, "proprio": self._vectors},
                "absent": [
                    "success",
                    *([] if self._rewards else ["reward"]),
                    *([] if self._terminals else ["is_terminal"]),
                ],
            },
            reward=self._rewards,
        )

    def _some_end_without_done(self) -> bool:
        """Do `dones` say where a task ended for good? Where every demo ends with one, they mark the
        demo's end, as at a time limit: to learn that nothing comes after it would be wrong."""
        for key in self.keys:
            try:
                if not read_per_step(self._data[key], "dones")[-1]:
                    return True
            except BROKEN:
                continue  # rows() of this key raises it
        self.notes += (
            "every demo ends with a done, which marks its end: whether the task ended for good "
            "(is_terminal) is not known",
        )
        return False

    def _who_renders_upside_down(self, task: str) -> str:
        """What in this file says that frames may be upside down; empty: nothing."""
        if self._cameras and any(word in task.lower() for word in _UPSIDE_DOWN):
            return f"env_name {task!r}"
        convention = self._data.attrs.get("macros_image_convention")
        return "macros_image_convention 'opengl'" if convention == "opengl" else ""

    def _environment(self) -> dict[str, Any]:
        """The attribute env_args, or {} where it is no JSON object."""
        try:
            # NaN and Infinity, which Python writes and JSON lacks, become text
            env = json.loads(self._data.attrs.get("env_args", "{}"), parse_constant=str)
        except (ValueError, TypeError):
            env = None
        if isinstance(env, dict):
            return env
        self.losses.append("env_args, which is no JSON object: robot, task and rate are not known")
        return {}

    def _period(self, kwargs: dict[str, Any]) -> float:
        rate = kwargs.get("control_freq")
        if isinstance(rate, int | float) and not isinstance(rate, bool) and 0 < rate < math.inf:
            return 1 / rate
        value = f" (control_freq: {rate!r})" if "control_freq" in kwargs else ""
        raise FormatError(f"{self._path}: it does not say its rate{value}. Give --period SECONDS.")

    def _action_spec(self, size: int) -> VectorSpec:
        """Bounds of 1, as robomimic has it, of the dimensions that keep them in every demo."""
        reach = np.zeros(size, np.float32)
        for key in self.keys:
            try:
                actions = np.abs(float32(read_actions(self._data[key])))
                reach = np.maximum(reach, np.where(np.isfinite(actions), actions, 0).max(axis=0))
            except BROKEN:
                continue  # rows() of this key raises it
        names = vector_spec({"action": size}).names
        if beyond := [f"{n} {r:.3g}" for n, r in zip(names, reach, strict=True) if r > 1]:
            self.notes += (
                f"actions go beyond 1, and the file declares no bounds: {', '.join(beyond)}. These "
                "dimensions have none in the log.",
            )
        return vector_spec({"action": size}, np.where(reach > 1, math.inf, 1.0))

    def _add_losses(self, demo: Any) -> None:
        known = {"actions", "obs", "next_obs"}
        known |= {n for n, kept in (("rewards", self._rewards), ("dones", self._dones)) if kept}
        if left := sorted(set(demo) - known):
            self.losses.append(f"datasets of each demo: {', '.join(left)}")
        if other := sorted(set(demo["obs"]) - {*self._cameras, *self._vectors}):
            self.losses.append(f"observations that are neither RGB uint8 nor vectors: {other}")
        if wide := [k for k in self._vectors if demo["obs"][k].dtype.itemsize > 4]:
            self.losses.append(f"digits beyond float32: actions, rewards, {', '.join(wide)}")
        if isinstance(mask := self._file.get("mask"), self._h5py.Group):
            self.losses.append(f"splits (mask/): {', '.join(sorted(mask))}")
        if "model_file" in demo.attrs:
            self.losses.append("attributes of each demo: model_file (the simulator's XML)")
        if self._dones and demo["dones"][:-1].any():
            self.losses.append("dones before the last action of a demo")
        if "next_obs" not in demo:
            self.losses.append(
                "no next_obs: what each last action led to; its row has the action, not is_last"
            )

    # An episode --------------------------------------------------------------------------------

    def _read(self, demo: Any) -> Iterator[dict[str, Any]]:
        actions = read_actions(demo)
        complete = bool(demo.attrs.get("wm_complete", "next_obs" in demo))
        whole = "next_obs" in demo and complete
        rows = len(actions) + whole
        fields: dict[str, np.ndarray] = {"action": padded(actions, rows)}
        if self.spec.reward:
            fields["reward"] = padded(read_per_step(demo, "rewards"), rows)
        if "wm" in demo:
            fields |= {k: v[()] for k, v in demo["wm"].items() if k in self.spec.fields}
        elif self._dones:
            done = read_per_step(demo, "dones")[-1]
            fields["is_terminal"] = np.zeros(rows, bool)
            fields["is_terminal"][len(actions) - 1] = done and self._terminals
        for name in self._cameras:
            fields[f"image/{name}"] = read_observation(demo, name, whole)
        if self.spec.proprio is not None:
            parts = [read_observation(demo, k, whole) for k in self._vectors]
            flat = [float32(p.reshape(len(p), -1)) for p in parts]
            fields["proprio"] = np.concatenate(flat, axis=1)
        short = {k: len(v) for k, v in fields.items() if len(v) != rows}
        if short:
            raise ValueError(f"rows: got {short}, expected {rows} each, for {len(actions)} actions")
        yield from rows_of(self.spec, fields, rows, complete=complete)
