"""What every format is to us: an Importer yields episodes of log rows, an Exporter takes them.

Both say in `losses`, before anything is written, what the other side cannot hold.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, fields, replace
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar

import numpy as np

from wm_datasets.errors import LogError
from wm_datasets.log.reader import LogReader
from wm_datasets.sensors import SensorSpec
from wm_datasets.spec import EVALUATION, LogSpec, Source

EXTRA = "pip install -c constraints.txt -e '.[formats]'"


class FormatError(LogError):
    """The source, the destination or an option does not fit the format."""


class CorruptInputError(FormatError):
    """A file of the source cannot be read: which, and what is wrong with it."""

    def __init__(self, path: Path, what: object) -> None:
        super().__init__(f"{path}: {what}")
        self.path, self.what = path, str(what)


class MissingExtraError(FormatError):
    """A library that this format needs is not installed."""


def need(module: str) -> Any:
    """Import a library of the extra [formats], or say how to get it."""
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module.partition(".")[0]:
            raise
        raise MissingExtraError(
            f"this format needs {error.name!r}, which is not installed. Run {EXTRA}"
        ) from None


@dataclass(frozen=True)
class Options:
    """What a person may say where the source does not; None: what the format says itself.

    A format uses some of them (`Importer.uses`, `Exporter.uses`). `flip`, `crop` (shares of left,
    top, right, bottom) and `size` (height, width) change the images of any source, in this order:
    `open_source` sees to them.
    """

    robot: str | None = None
    task: str | None = None
    period_s: float | None = None
    camera: str | None = None
    flip: bool = False
    crop: tuple[float, float, float, float] | None = None
    size: tuple[int, int] | None = None
    topics: Path | None = None
    version: str | None = None
    lossy: bool = False
    layout: str | None = None

    def changed(self) -> list[str]:
        """Names of the options that differ from their defaults."""
        return [f.name for f in fields(self) if getattr(self, f.name) != f.default]

    def refuse_others(self, used: Collection[str], what: str) -> None:
        """FormatError where an option is given that `what` does not use."""
        for name in self.changed():
            if name not in used:
                right = ", ".join(map(flag, sorted(used))) or "none"
                raise FormatError(
                    f"{flag(name)}: got {getattr(self, name)!r}, expected no value, because {what} "
                    f"does not use it. Leave it out (used here: {right})."
                )

    def refuse_beside_spec(self, source: Path, used: Collection[str] = ()) -> None:
        """FormatError where options describe a source that was exported from a log and has its spec
        beside it."""
        self.refuse_others(used, f"{source}, which came from a log and says that itself,")


def flag(option: str) -> str:
    """Return an option as it is written on the command line."""
    return f"--{option.removesuffix('_s')}"


class Importer(ABC):
    """Episodes of a source, each under a key that stays the same from one run to the next.

    Opening reads what is needed for `spec`, `keys` and `losses`, and writes nothing. `notes` are
    what is kept otherwise than one may expect; `upside_down` names what in the source says that its
    frames may be upside down (`Flipped` turns them); `unequal` says which frames are of another
    size than `spec` (`Resized` makes them equal): such a source does not get into a log. `uses` are
    the options of `Options` that mean something to the format.
    """

    uses: ClassVar[frozenset[str]] = frozenset()
    spec: LogSpec
    keys: list[str]
    losses: list[str]
    notes: tuple[str, ...] = ()
    upside_down: str = ""
    unequal: str = ""

    @abstractmethod
    def rows(self, key: str) -> Iterator[dict[str, Any]]:
        """Yield the rows of one episode, all fields of `spec`; CorruptInputError where broken."""

    def close(self) -> None:  # noqa: B027
        """Let go of the source."""

    def __enter__(self) -> Importer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


@dataclass(frozen=True)
class Episode:
    """One episode of a log; arrays are read when asked for."""

    reader: LogReader
    index: int
    start: int
    length: int
    complete: bool

    @property
    def spec(self) -> LogSpec:
        return self.reader.spec

    @property
    def steps(self) -> int:
        """Actions: rows less the last one, which has none unless the episode was cut."""
        return self.length - self.complete

    def read(self, field: str) -> np.ndarray:
        """Return one field of all rows, (length, *shape)."""
        if field == EVALUATION and self.start < self.reader.since(EVALUATION):
            return np.zeros(self.length, bool)
        return self.reader.read(field, self.start, self.start + self.length)

    def frames(self, camera: str) -> Iterator[np.ndarray]:
        """Yield a camera's frames one after the other, (H, W, 3) uint8."""
        return self.images(f"image/{camera}")

    def images(self, field: str, block: int = 64) -> Iterator[np.ndarray]:
        """Yield the rows of a field one after the other."""
        stop = self.start + self.length
        for at in range(self.start, stop, block):
            yield from self.reader.read(field, at, min(stop, at + block))


class Exporter(ABC):
    """Writes episodes into a new folder or file; `finish` makes it whole. See `Importer.uses`."""

    uses: ClassVar[frozenset[str]] = frozenset()
    losses: list[str]

    @abstractmethod
    def __init__(self, reader: LogReader, options: Options) -> None:
        """Look at the log and say in `losses` what will not be kept; write nothing."""

    @abstractmethod
    def open(self, destination: Path) -> None:
        """Begin to write at `destination`, which does not exist yet."""

    @abstractmethod
    def write(self, episode: Episode) -> None:
        """Write one episode."""

    @abstractmethod
    def finish(self) -> None:
        """Write what comes last and close everything."""


def exportable(
    reader: LogReader, keep: Callable[[str, SensorSpec], bool] = lambda name, sensor: False
) -> tuple[LogSpec, list[str]]:
    """Return the part of a log's spec that a format can hold, and the losses that this is.

    That leaves out sensors (but those that were always there and that `keep` chooses), cameras
    and signals that some episodes were recorded without, and episodes that hold lost rows: every
    block is read to know them. Where some episodes are older than `evaluation` they count as
    training episodes, as they do for the sampler.
    """
    spec, losses = reader.spec, []
    for name in spec.fields:
        for start in range(reader.first, reader.length, rows := 4 * reader.chunk_rows(name)):
            reader.read_around(name, start, min(start + rows, reader.length))
    if damaged := len(reader.episodes) - len(reader.intact):
        losses.append(f"{damaged} episodes that hold lost rows (wm log verify names them)")
    kept = {
        name: sensor
        for name, sensor in spec.sensors.items()
        if keep(name, sensor) and reader.present(f"sensor/{name}").all()
    }
    if gone := [name for name in spec.sensors if name not in kept]:
        losses.append(f"sensors: {', '.join(gone)}")
    partly = [name for name in spec.fields if not reader.present(name).all()]
    partly = [n for n in partly if not n.startswith("sensor/") and n != EVALUATION]
    if partly:
        losses.append(f"fields that are absent in the first episodes: {', '.join(partly)}")
    cameras = {name: s for name, s in spec.cameras.items() if f"image/{name}" not in partly}
    if not cameras and spec.proprio is None:
        raise FormatError(
            f"{reader.path}: got no camera and no proprio that every episode has, expected one. "
            "Export a log whose episodes share a field."
        )
    signals = None if "signals" in partly else spec.signals
    return replace(spec, cameras=cameras, signals=signals, sensors=kept), losses


def episodes_of(reader: LogReader) -> list[Episode]:
    """The episodes of a log, oldest first, but those that are known to hold lost rows."""
    return [
        Episode(reader, i, int(e["start"]), int(e["length"]), bool(e["complete"]))
        for i, e in enumerate(reader.intact)
    ]


def rows_of(
    spec: LogSpec, fields: dict[str, np.ndarray], rows: int, *, complete: bool = True
) -> Iterator[dict[str, Any]]:
    """Turn arrays (rows, ...) into the rows of one episode; what is not given gets its default.

    The last row of a complete episode carries no action: what `fields` has there is set to zero.
    """
    stamps = (np.arange(rows) * spec.control_period_s * 1e9).round().astype(np.int64)
    defaults = {"stamp": stamps, "source": Source.PERSON, "weights": -1}
    if spec.action is not None and "commanded" not in fields:
        fields = fields | {"commanded": fields["action"]}
    for t in range(rows):
        last = complete and t == rows - 1
        row: dict[str, Any] = {"is_first": t == 0, "is_last": last}
        for name, field in spec.fields.items():
            if name in row:
                continue
            value = fields.get(name, defaults.get(name, False))
            row[name] = value[t] if isinstance(value, np.ndarray) else value
            if last and name in ("action", "commanded", "signals", "reward"):
                row[name] = np.zeros(field.shape, np.float32)
            elif last and name in ("is_terminal",):
                row[name] = False
        yield row
