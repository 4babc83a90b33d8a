"""The folders of DINO-WM: states.pth, actions.pth, seq_lengths.pth and obses/episode_000.pth.

Three layouts: `point_maze` (frames [T, H, W, 3]), `wall` ([T, 3, H, W]) and `pusht` (mp4 frames,
velocities.pth, rel_actions.pth in pixels, seq_lengths.pkl). Proprioception is what the authors
give their models: all states, but of PushT the agent's place and velocity alone; the block's pose
becomes the sensor `block`, which no model sees that does not ask for it. What they have no place
for is put beside them in wm_log.json and wm_log.npz, at which DINO-WM does not look.
"""

from __future__ import annotations

import json
import math
import pickle
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from wm_datasets.formats.base import (
    CorruptInputError,
    Episode,
    Exporter,
    FormatError,
    Importer,
    Options,
    episodes_of,
    exportable,
    rows_of,
)
from wm_datasets.formats.dino_wm_deformable import DeformableImport, is_deformable
from wm_datasets.formats.torch_file import load_pickle, load_tensor, save_tensor
from wm_datasets.formats.video import encode
from wm_datasets.formats.video_decoder import decode
from wm_datasets.log.reader import LogReader
from wm_datasets.sensors import SensorSpec
from wm_datasets.spec import LogSpec, VectorSpec

LAYOUTS = ("point_maze", "wall", "pusht")
PUSHT_PIXELS = 100.0  # DINO-WM divides PushT's actions by it when it loads them
_PERIODS = {"point_maze": 0.05, "pusht": 0.1}
_OWN = "commanded signals reward is_terminal success stamp source weights evaluation".split()
_PROPRIO = {
    "point_maze": "x:m y:m vx:m/s vy:m/s",
    "wall": "x:px y:px",
    "pusht": "agent_x:px agent_y:px agent_vx:px/s agent_vy:px/s",
}
BLOCK = "block"  # the sensor that holds the rest of PushT's states
_BLOCK = "block_x:px block_y:px block_angle:rad"
_AGENT = 2  # of PushT's states are the agent's place
_ACTIONS = {"point_maze": "force_x:1 force_y:1", "wall": "dx:px dy:px", "pusht": "dx:1 dy:1"}


class Import(Importer):
    """A folder of DINO-WM (the one with states.pth in it); key i is episode i."""

    uses = frozenset({"robot", "task", "period_s", "camera"})

    def __new__(cls, source: Path, options: Options) -> Importer:  # type: ignore[misc]
        """The importer of the folder's layout: rope and granular have one of their own."""
        return DeformableImport(source, options) if is_deformable(source) else super().__new__(cls)

    def __init__(self, source: Path, options: Options) -> None:
        self._folder = source
        if not (source / "states.pth").exists():
            inner = sorted(p.parent.name for p in source.glob("*/states.pth"))
            hint = f" Give one of its folders: {', '.join(inner)}." if inner else ""
            raise FormatError(f"{source}: no states.pth, so it is not DINO-WM's layout.{hint}")
        self._pusht = (source / "rel_actions.pth").exists()
        self._own: dict[str, np.ndarray] = {}
        own = self._own_spec(options)
        states = self._tensor("states.pth")
        self._lengths = self._read_lengths(*states.shape[:2])
        place = states.shape[2]  # numbers of the agent; of PushT the block's follow
        if own is not None and BLOCK in own.sensors:
            place -= own.sensors[BLOCK].shape[0]
        elif own is None and self._pusht:
            place = min(place, _AGENT)
        self._block = states[..., place:].astype(np.float32) if place < states.shape[2] else None
        parts = [states[..., :place]]
        if (source / "velocities.pth").exists():
            parts.append(self._tensor("velocities.pth"))
        self._proprio = np.concatenate(parts, axis=2).astype(np.float32)
        actions = self._tensor("rel_actions.pth" if self._pusht else "actions.pth")
        self._actions = (actions / (PUSHT_PIXELS if self._pusht else 1)).astype(np.float32)
        self.keys = [str(i) for i in range(len(self._lengths))]
        first = self._frame_shape()
        wall = not self._pusht and first[-1] != 3
        self._layout = "pusht" if self._pusht else "wall" if wall else "point_maze"
        shape = (*first[1:], 3) if wall else first
        self.losses: list[str] = []
        self.spec = own or self._foreign_spec(shape, options)
        if own is None:
            self._add_losses()

    def rows(self, key: str) -> Iterator[dict[str, Any]]:
        i = int(key)
        rows = self._lengths[i]
        if rows < 1:
            raise CorruptInputError(
                self._folder, f"episode {i}: got length {rows}, expected at least 1."
            )
        camera = next(iter(self.spec.cameras))
        frames = self._frames(i)
        shape = (rows, *self.spec.cameras[camera])
        if len(frames) < rows or frames.shape[1:] != shape[1:] or frames.dtype != np.uint8:
            raise CorruptInputError(
                self._path(i), f"frames: got {frames.dtype} {frames.shape}, expected uint8 {shape}."
            )
        fields = {
            f"image/{camera}": frames[:rows],
            "proprio": self._proprio[i, :rows],
            "action": self._actions[i, :rows],
        }
        if self._block is not None:
            fields[f"sensor/{BLOCK}"] = self._block[i, :rows]
        if not all(np.isfinite(v).all() for n, v in fields.items() if not n.startswith("image/")):
            raise CorruptInputError(self._folder, f"episode {i}: some numbers are not finite.")
        complete = True
        if self._own:
            at = slice(sum(self._lengths[:i]), sum(self._lengths[: i + 1]))
            fields |= {k: self._own[k][at] for k in _OWN if k in self._own}
            complete = bool(self._own["complete"][i])
        yield from rows_of(self.spec, fields, rows, complete=complete)

    def _tensor(self, name: str) -> np.ndarray:
        try:
            value = load_tensor(self._folder / name)
        except FileNotFoundError:
            raise FormatError(
                f"{self._folder}: no {name}, so it is not DINO-WM's layout."
            ) from None
        except (OSError, ValueError, KeyError, pickle.UnpicklingError, zipfile.BadZipFile) as error:
            raise CorruptInputError(self._folder / name, error) from error
        if value.ndim != 3:
            raise CorruptInputError(self._folder / name, f"got {value.shape}, expected (n, T, D).")
        return value

    def _read_lengths(self, episodes: int, steps: int) -> list[int]:
        for name in ("seq_lengths.pth", "seq_lengths.pkl"):
            path = self._folder / name
            if not path.exists():
                continue
            try:
                values = load_tensor(path) if zipfile.is_zipfile(path) else _unpickle(path)
                lengths = [int(x) for x in np.asarray(values).reshape(-1)]
            except Exception as error:
                raise CorruptInputError(path, error) from error
            if len(lengths) != episodes or max(lengths, default=0) > steps:
                raise CorruptInputError(
                    path,
                    f"got {len(lengths)} lengths up to {max(lengths, default=0)}, expected those "
                    f"of states.pth: {episodes} episodes of at most {steps} rows.",
                )
            return lengths
        return [steps] * episodes

    def _path(self, i: int) -> Path:
        suffix = "mp4" if self._pusht else "pth"
        return self._folder / "obses" / f"episode_{i:03d}.{suffix}"

    def _frames(self, i: int) -> np.ndarray:
        path = self._path(i)
        if not path.exists():
            raise CorruptInputError(path, "there is no such file.")
        if self._pusht:
            return np.stack([frame for _, frame in decode(path)])
        try:
            frames = load_tensor(path)
        except (OSError, ValueError, KeyError, pickle.UnpicklingError, zipfile.BadZipFile) as error:
            raise CorruptInputError(path, error) from error
        return frames.transpose(0, 2, 3, 1) if getattr(self, "_layout", "") == "wall" else frames

    def _frame_shape(self) -> tuple[int, int, int]:
        for i in range(len(self._lengths)):
            try:
                frames = self._frames(i)
            except CorruptInputError:
                continue  # rows() of this key raises it
            if frames.ndim == 4:
                return frames.shape[1:]
        raise CorruptInputError(self._folder / "obses", "none of its files can be read.")

    def _own_spec(self, options: Options) -> LogSpec | None:
        """The spec of the log that this folder came from, and what lies beside; None without."""
        own = self._folder / "wm_log.json"
        if not own.exists():
            return None
        options.refuse_beside_spec(self._folder)
        with np.load(self._folder / "wm_log.npz", allow_pickle=False) as arrays:
            self._own = dict(arrays)
        return LogSpec.from_json(json.loads(own.read_text()))

    def _foreign_spec(self, shape: tuple[int, ...], options: Options) -> LogSpec:
        period = options.period_s or _PERIODS.get(self._layout)
        if not period:
            raise FormatError(f"{self._folder}: it does not say its rate. Give --period SECONDS.")
        return LogSpec(
            robot=options.robot or self._layout,
            task=options.task or self._layout,
            control_period_s=period,
            cameras={options.camera or "camera": (shape[0], shape[1], 3)},
            proprio=_vector(_PROPRIO[self._layout], self._proprio.shape[2], "state"),
            action=_vector(_ACTIONS[self._layout], self._actions.shape[2], "action"),
            sensors={} if self._block is None else {BLOCK: _block_spec(self._block.shape[2])},
            extra={"dino_wm": {"layout": self._layout}, "absent": ["reward", "success"]},
            reward=False,
        )

    def _add_losses(self) -> None:
        lasts = [self._actions[i, n - 1] for i, n in enumerate(self._lengths) if n]
        if np.any(lasts):
            self.losses.append("the last action of each episode: no frame shows its result")
        read = {"states", "velocities", "seq_lengths", "rel_actions" if self._pusht else "actions"}
        if left := sorted(p.name for p in self._folder.glob("*.p[tk][hl]") if p.stem not in read):
            self.losses.append(f"files: {', '.join(left)}")


class Export(Exporter):
    """A folder that DINO-WM loads; the log's own layout, `--layout`, or point_maze."""

    uses = frozenset({"layout"})

    def __init__(self, reader: LogReader, options: Options) -> None:
        self._layout = options.layout or _own_layout(reader.spec)
        if self._layout not in LAYOUTS:
            raise FormatError(
                f"--layout: got {self._layout!r}, expected one of {', '.join(LAYOUTS)}."
            )
        self._spec, self.losses = exportable(reader, self._is_block)
        spec = self._spec
        if spec.action is None or spec.proprio is None or not spec.cameras:
            parts = {"action": spec.action, "proprio": spec.proprio, "camera": spec.cameras}
            lacking = [name for name, part in parts.items() if not part]
            raise FormatError(
                f"log: got one without {', '.join(lacking)}, expected action, proprio and a camera "
                "for DINO-WM. Choose another format."
            )
        self._camera, *others = spec.cameras
        self._episodes = episodes_of(reader)
        self.losses += [f"cameras: {', '.join(others)}"] if others else []
        if self._layout == "pusht":
            self.losses.append("exact pixels (H.264 at crf 18); actions are rounded in float32")
            if len(spec.proprio) < 3:
                raise FormatError(
                    f"--layout pusht: got proprio of {len(spec.proprio)} numbers, expected at "
                    "least 3, the last 2 of them velocities. Choose another layout."
                )

    def _is_block(self, name: str, sensor: SensorSpec) -> bool:
        """Is it a sensor that this layout has a place for: behind the agent's place?"""
        vector = sensor.dtype == "float32" and len(sensor.shape) == 1
        return self._layout == "pusht" and name == BLOCK and vector

    def open(self, destination: Path) -> None:
        self._folder = destination
        (destination / "obses").mkdir(parents=True)
        longest = max((e.length for e in self._episodes), default=0)
        size = (len(self._episodes), longest)
        assert self._spec.proprio is not None and self._spec.action is not None
        self._states = np.zeros((*size, len(self._spec.proprio)), np.float32)
        block = self._spec.sensors.get(BLOCK)
        self._block = np.zeros((*size, *block.shape), np.float32) if block else None
        self._actions = np.zeros((*size, len(self._spec.action)), np.float32)
        self._own: dict[str, list[np.ndarray]] = {n: [] for n in _OWN if n in self._spec.fields}

    def write(self, episode: Episode) -> None:
        i, rows = episode.index, episode.length
        self._states[i, :rows] = episode.read("proprio")
        if self._block is not None:
            self._block[i, :rows] = episode.read(f"sensor/{BLOCK}")
        self._actions[i, :rows] = episode.read("action")
        for name, parts in self._own.items():
            parts.append(episode.read(name))
        path = self._folder / "obses" / f"episode_{i:03d}"
        if self._layout == "pusht":
            period = self._spec.control_period_s
            stamps = (np.arange(rows) * period * 1e9).astype(np.int64)
            frames = episode.frames(self._camera)
            encode(path.with_suffix(".mp4"), frames, stamps, period, True)
            return
        frames_ = episode.read(f"image/{self._camera}")
        if self._layout == "wall":
            frames_ = frames_.transpose(0, 3, 1, 2)
        save_tensor(path.with_suffix(".pth"), frames_)

    def finish(self) -> None:
        lengths = np.array([e.length for e in self._episodes], np.int64)
        states, actions, folder = self._states, self._actions, self._folder
        if self._layout == "pusht":
            save_tensor(folder / "velocities.pth", states[..., -2:])
            save_tensor(folder / "rel_actions.pth", actions * np.float32(PUSHT_PIXELS))
            (folder / "seq_lengths.pkl").write_bytes(pickle.dumps(lengths.tolist()))
            states = states[..., :-2]
            if self._block is not None:
                states = np.concatenate([states, self._block], axis=2)
        else:
            save_tensor(folder / "actions.pth", actions)
            save_tensor(folder / "seq_lengths.pth", lengths)
        save_tensor(folder / "states.pth", states)
        cameras = {self._camera: self._spec.cameras[self._camera]}
        spec = self._spec.to_json() | {"cameras": cameras}
        (folder / "wm_log.json").write_text(json.dumps(spec))
        own = {n: np.concatenate(parts) for n, parts in self._own.items() if parts}
        complete = np.array([e.complete for e in self._episodes])
        np.savez_compressed(folder / "wm_log.npz", complete=complete, **own)


def _own_layout(spec: LogSpec) -> str:
    """The layout that a log came from, where it can be written."""
    layout = spec.extra.get("dino_wm", {}).get("layout")
    return layout if layout in LAYOUTS else "point_maze"


def _unpickle(path: Path) -> Any:
    return load_pickle(path.read_bytes())


def _vector(known: str, size: int, name: str) -> VectorSpec:
    """The layout's names and units where the size is the layout's, else numbers."""
    parts = known.split()
    if len(parts) != size:
        parts = [f"{name}_{i}:" for i in range(size)]
    names, units = zip(*(part.split(":") for part in parts))
    return VectorSpec(names, units, (-math.inf,) * size, (math.inf,) * size)


def _block_spec(size: int) -> SensorSpec:
    """What PushT's states have behind the agent's place."""
    known = _vector(_BLOCK, size, "state")
    return SensorSpec("float32", (size,), known.units, known.names)
