"""A log into one bag, of the topics that nodes would have spoken on (docs/topics.md)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from wm_datasets.formats.base import (
    Episode,
    Exporter,
    FormatError,
    Options,
    episodes_of,
    exportable,
    need,
)
from wm_datasets.formats.rosbag.arrivals import Arrival, arrivals_of_rows, nothing_led
from wm_datasets.formats.rosbag.by_stamp import SLACK_NS
from wm_datasets.formats.rosbag.mapping import load_mapping
from wm_datasets.formats.rosbag.messages import (
    COMPRESSED,
    IMAGE,
    JOINTS,
    SCALARS,
    TEXT,
    Maker,
    vector_names,
)
from wm_datasets.log.reader import LogReader
from wm_datasets.spec import EVALUATION

NAME = "log"  # of the file: log.mcap, log.db3
STORAGES = ("mcap", "sqlite3")
METADATA_VERSION = 8  # of rosbag2; newer ones write other names of QoS
LAST = ("is_terminal", "success", "source", "weights")
GAP_NS = 3 * SLACK_NS  # between episodes whose stamps do not grow
MAX_STAMP_NS = 2**31 * 1_000_000_000


class Export(Exporter):
    """A folder with metadata.yaml and one file; header stamps are the log's."""

    uses = frozenset({"topics", "layout", "lossy"})

    def __init__(self, reader: LogReader, options: Options) -> None:
        self._mapping = mapping = load_mapping(options.topics)
        self._spec, self.losses = exportable(reader, lambda name, sensor: sensor.is_depth)
        spec = self._spec
        self._storage = options.layout or "mcap"
        if self._storage not in STORAGES:
            raise FormatError(
                f"--layout: got {self._storage!r}, expected one of {', '.join(STORAGES)}."
            )
        if not mapping.step or not mapping.spec or (spec.proprio and not mapping.proprio):
            raise FormatError("--topics: an export needs step, spec and proprio in it")
        self._images = "jpeg" if options.lossy else mapping.images
        ending = "" if self._images == "raw" else "/compressed"
        self._topics = {c: mapping.topic_of(c, ending) for c in spec.cameras}
        self._depths = {name: mapping.depth_topic_of(name) for name in spec.sensors}
        self.losses += ["exact pixels (JPEG, quality 95)"] if self._images == "jpeg" else []
        self._add_losses(reader)

    def open(self, destination: Path) -> None:
        rosbag2, typesys = need("rosbags.rosbag2"), need("rosbags.typesys")
        self._store = typesys.get_typestore(typesys.Stores.ROS2_HUMBLE)
        self._make = Maker(self._store)
        plugin = rosbag2.StoragePlugin[self._storage.upper()]
        # The writer names its file like its folder, and the file's name is written in both.
        self._folder = destination / NAME
        self._bag = rosbag2.Writer(self._folder, version=METADATA_VERSION, storage_plugin=plugin)
        self._bag.open()
        image_type = IMAGE if self._images == "raw" else COMPRESSED
        types = {self._mapping.spec: TEXT, self._mapping.step: JOINTS}
        types |= {topic: image_type for topic in self._topics.values()}
        types |= {topic: IMAGE for topic in self._depths.values()}
        if self._spec.proprio is not None:
            types[self._mapping.proprio[0].topic] = JOINTS
        self._connections = {
            topic: self._bag.add_connection(
                topic, kind, typestore=self._store,
                offered_qos_profiles=[_latched()] if topic == self._mapping.spec else [],
            )
            for topic, kind in types.items()
        }  # fmt: skip
        self._now_ns = -1  # of the newest message; -1 before the spec, which is the first
        self._vectors = vector_names(self._spec)
        self._names = [name for names in self._vectors.values() for name in names] + [*SCALARS]

    def write(self, episode: Episode) -> None:
        fields = [f for f in self._spec.fields if not f.startswith(("image/", "sensor/"))]
        rows = {name: episode.read(name) for name in fields}
        frames = {camera: episode.frames(camera) for camera in self._spec.cameras}
        deep = {name: episode.images(f"sensor/{name}") for name in self._spec.sensors}
        begin = int(rows["stamp"][0])
        # Readers go by the time of reception, which must grow even where stamps do not.
        shift = max(0, self._now_ns + GAP_NS - begin) if begin <= self._now_ns else 0
        self._write_spec(begin + shift)
        for t, arrival in enumerate(arrivals_of_rows(self._spec, rows, episode.complete)):
            self._now_ns = arrival.stamp_ns + shift
            if t < episode.length:
                for camera, images in frames.items():
                    message = self._make.image(next(images), arrival.stamp_ns, self._images)
                    self._write(self._topics[camera], message)
                for name, images in deep.items():
                    message = self._make.depth(next(images), arrival.stamp_ns)
                    self._write(self._depths[name], message)
                if (proprio := self._spec.proprio) is not None:
                    message = self._make.joints(
                        list(proprio.names), arrival.parts["proprio"], arrival.stamp_ns
                    )
                    self._write(self._mapping.proprio[0].topic, message)
            self._write(self._mapping.step or "", self._step(arrival, first=t == 0))

    def finish(self) -> None:
        self._write_spec(0)
        self._bag.close()
        for path in self._folder.iterdir():
            path.rename(self._folder.parent / path.name)
        self._folder.rmdir()

    def _write_spec(self, at_ns: int) -> None:
        if self._now_ns < 0:
            self._now_ns = at_ns
            text = json.dumps(self._spec.to_json())
            self._write(self._mapping.spec or "", self._make.text(text))

    def _step(self, arrival: Arrival, *, first: bool) -> Any:
        led = arrival.led
        values: list[float] = []
        for field in self._vectors:
            values += np.asarray(led[field]).tolist()
        explore = not led.get(EVALUATION, False)
        flags = {"is_first": first, "is_last": arrival.last, "explore": explore, "reward": 0.0}
        values += [float((flags | led)[name]) for name in SCALARS]
        return self._make.joints(self._names, np.array(values), arrival.stamp_ns)

    def _write(self, topic: str, message: Any) -> None:
        raw = self._store.serialize_cdr(message, message.__msgtype__)
        self._bag.write(self._connections[topic], self._now_ns, raw)

    def _add_losses(self, reader: LogReader) -> None:
        """The bag has no place for what the last row's flags say, beyond what led there."""
        differ: set[str] = set()
        for episode in episodes_of(reader):
            stop = episode.start + episode.length
            stamps = reader.read("stamp", episode.start, stop)
            if stamps[0] < 0 or stamps[-1] + 1e9 >= MAX_STAMP_NS:
                raise FormatError(
                    f"episode {episode.index}: stamps: got {stamps[0]} to {stamps[-1]} ns, "
                    "expected times that ROS can hold (0 to 2038)."
                )
            if episode.complete:
                for name in LAST:
                    read = reader.read(name, max(episode.start, stop - 2), stop).tolist()
                    before = read[0] if len(read) == 2 else nothing_led(self._spec)[name]
                    differ |= {name} if before != read[-1] else set()
        if differ:
            self.losses.append(
                f"{', '.join(sorted(differ))} of the last row of each episode, which has no action "
                "(comes back as in the row before)"
            )


def _latched() -> Any:
    """Who comes late is given the newest."""
    rosbags = need("rosbags.interfaces")
    never = rosbags.QosTime(0, 0)
    return rosbags.Qos(
        rosbags.QosHistory.KEEP_LAST, 1, rosbags.QosReliability.RELIABLE,
        rosbags.QosDurability.TRANSIENT_LOCAL, never, never,
        rosbags.QosLiveliness.AUTOMATIC, never, False,
    )  # fmt: skip
