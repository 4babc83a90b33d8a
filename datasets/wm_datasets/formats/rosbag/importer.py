"""Bags into a log."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from wm_datasets.formats.base import CorruptInputError, FormatError, Importer, Options
from wm_datasets.formats.rosbag import by_stamp, resampled
from wm_datasets.formats.rosbag.arrivals import Arrival, rows_of_arrivals
from wm_datasets.formats.rosbag.bag import Bag
from wm_datasets.formats.rosbag.by_stamp import Take, find_takes
from wm_datasets.formats.rosbag.contents import Contents
from wm_datasets.formats.rosbag.files import find_bags, unlisted
from wm_datasets.formats.rosbag.losses import losses_of
from wm_datasets.formats.rosbag.mapping import load_mapping
from wm_datasets.formats.rosbag.recorder_clock import set_back
from wm_datasets.formats.rosbag.scan import DAY_NS, EARLY_NS, Scan, Span

MOST_NOTES = 8


class Import(Importer):
    """A bag, or a folder of them.

    A bag with the topic `step`, and one whose clock jumps, holds the episodes <bag>#0, <bag>#1 and
    so on; any other is the episode <bag>.
    """

    uses = frozenset({"robot", "task", "period_s", "topics"})

    def __init__(self, source: Path, options: Options) -> None:
        self._mapping = mapping = load_mapping(options.topics)
        if options.period_s is not None:
            self._mapping = mapping = replace(mapping, period_s=options.period_s)
        self._options, self._open = options, None
        self._bags: dict[str, Path] = {}
        self._takes: dict[str, tuple[str, Take]] = {}
        self._spans: dict[str, tuple[str, Span]] = {}
        self._scans: dict[str, Scan] = {}
        self._refused: dict[str, str] = {}
        self._notes: list[str] = []  # of single bags
        self.keys = []
        contents: Contents | None = None
        refused: FormatError | None = None
        root = source if source.is_dir() else source.parent
        for path in find_bags(source):
            name = path.relative_to(root).as_posix() if path != root else path.name
            self._bags[name] = path
            try:
                bag = self._bag(name)
                if contents is None:
                    first = Contents(bag, mapping, options)
                    self.losses = losses_of(bag, mapping, first)
                    contents = self._contents = first
                self._add_keys(name, bag)
            except FormatError as error:
                if contents is None:
                    refused = refused or error
                what = str(error).removeprefix(str(path)).lstrip(": ")
                self._refused[name] = what  # rows() of this key raises it
                self.keys.append(name)
        if contents is None:
            assert refused is not None
            self.close()
            if len(self._bags) == 1 or not isinstance(refused, CorruptInputError):
                raise refused
            raise CorruptInputError(source, f"none of its bags can be read. {refused}")
        self.spec = contents.spec
        if any(take.evaluation for _, take in self._takes.values()):
            self.spec = replace(self.spec, evaluation=True)  # versions without the mark say less
        more = len(self._notes) - MOST_NOTES
        self.losses += self._notes[:MOST_NOTES]
        self.losses += [f"... and {more} more of these, of other bags"] if more > 0 else []

    def rows(self, key: str) -> Iterator[dict[str, Any]]:
        name = next((known[key][0] for known in (self._takes, self._spans) if key in known), key)
        last = None
        try:
            for row in rows_of_arrivals(self.spec, self._arrivals(name, key)):
                if last is not None and row["stamp"] <= last:
                    raise CorruptInputError(
                        self._bags[name],
                        f"stamp: got {row['stamp']} ns after {last} ns, expected growing stamps.",
                    )
                last = row["stamp"]
                yield row
        except CorruptInputError:
            raise
        except Exception as error:  # any error while a bag is read is the bag's fault
            raise CorruptInputError(self._bags[name], f"{type(error).__name__}: {error}") from error
        if last is None:
            raise CorruptInputError(
                self._bags[name], "there is no time at which all mapped topics had a message."
            )

    def close(self) -> None:
        if self._open is not None:
            self._open[1].close()
            self._open = None

    # --------------------------------------------------------------------------------------------

    _open: tuple[str, Bag] | None

    def _bag(self, name: str) -> Bag:
        """Open a bag; one is open at a time."""
        if self._open is None or self._open[0] != name:
            self.close()
            self._open = (name, Bag(self._bags[name]))
        return self._open[1]

    def _add_keys(self, name: str, bag: Bag) -> None:
        if gone := unlisted(bag.path):
            self._notes.append(
                f"{name}: files that metadata.yaml does not name: {', '.join(gone)} "
                f"(ros2 bag reindex {bag.path} adds them)"
            )
        self._check_recorder(bag)
        if self._contents.joins:
            takes = find_takes(bag, self._mapping.step or "")
            for i, take in enumerate(takes):
                self._takes[f"{name}#{i}"] = (name, take)
                self.keys.append(f"{name}#{i}")
            if takes:
                return
            raise CorruptInputError(bag.path, f"no step on {self._mapping.step}.")
        first = not self._scans and self._contents.scan
        scan = first if first and first.bag is bag else self._contents.look(bag)
        spans = self._contents.takes(scan)
        self._note(name, scan, spans)
        scan.forget()
        self._scans[name] = scan
        for i, span in enumerate(spans):
            key = f"{name}#{i}" if len(spans) > 1 else name
            self._spans[key] = (name, span)
            self.keys.append(key)
        if not spans:
            raise CorruptInputError(bag.path, "no message on the mapped topics.")

    def _check_recorder(self, bag: Bag) -> None:
        step = {self._mapping.step or ""} if self._contents.joins else set()
        if jump := set_back(bag.path, self._contents.topics | step):
            topic, by = jump
            raise CorruptInputError(
                bag.path,
                f"the recorder's clock was set back by {by / 1e9:.3g} s while {topic} was "
                "recorded: messages from before and after have the same times. Leave it out "
                "(--skip-corrupt), and record with a synchronised clock (chrony).",
            )

    def _note(self, name: str, scan: Scan, spans: list[Span]) -> None:
        """Add notes on one bag, for the user before the import."""
        if len(spans) > 1:
            jumps = len(scan.periods.jumps)
            why = f"clocks jump {jumps} times" if jumps else "all topics are silent between them"
            self._notes.append(f"{name}: becomes {len(spans)} episodes: {why}")
        for topic, info in sorted(scan.topics.items()):
            if EARLY_NS < info.ahead_ns < DAY_NS:
                self._notes.append(
                    f"{name}: {topic} has stamps up to {info.ahead_ns / 1e9:.3g} s after their "
                    "reception, so its rows are joined with other topics of that much later. "
                    "Synchronise the clocks (chrony, PTP) when recording, or give stamps: "
                    "received, in --topics."
                )

    def _arrivals(self, name: str, key: str) -> Iterator[Arrival]:
        if name in self._refused:
            raise CorruptInputError(self._bags[name], self._refused[name])
        bag, contents = self._bag(name), self._contents
        if contents.joins:
            if missing := sorted(contents.topics - bag.types.keys()):
                raise CorruptInputError(bag.path, f"it has no topics {missing}.")
            proprio = [(p.topic, p.fields) for p in contents.names if p in self._mapping.proprio]
            fields = by_stamp.Fields(
                step=self._mapping.step or "",
                cameras=contents.cameras,
                depth_m={c: self._mapping.depth_m(c) for c in contents.cameras},
                proprio=proprio[0] if proprio else None,
                depths=contents.depths,
            )
            others = [take for bag_name, take in self._takes.values() if bag_name == name]
            yield from by_stamp.arrivals(bag, self._takes[key][1], self.spec, fields, others)
            return
        yield from resampled.arrivals(
            bag, self._spans[key][1], self._scans[name], self.spec, self._mapping,
            contents.cameras, contents.depths, contents.names,
        )  # fmt: skip
