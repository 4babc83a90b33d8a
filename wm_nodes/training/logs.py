"""The logs of a training run: opened, checked, and resized for the model."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from wm_datasets.log import LogReader
from wm_datasets.remote.object_store import is_url
from wm_datasets.remote.reader import open_log
from wm_datasets.sampling.camera_view import seen_as
from wm_datasets.sampling.resized_log import resized
from wm_nodes.evaluation.held_out import HeldOut
from wm_nodes.training.config import TrainingConfig, TrainingError
from wm_nodes.training.trainable import obstacle, refusal


class TrainingLogs:
    """The readers of a run's logs, in the order of the configuration; none before open()."""

    def __init__(self, config: TrainingConfig) -> None:
        self._config = config
        self.readers: list[LogReader] = []
        self.shares = [share for _, share in config.logs]  # of the windows, one for each reader
        self.resized_from: tuple[int, int] | None = None  # (H, W) of the log's images, if resized

    @property
    def places(self) -> list[str]:
        """URLs, or absolute paths, of the logs."""
        return [
            str(place) if is_url(place) else str(Path(place).resolve())
            for place, _ in self._config.logs
        ]

    @property
    def robot(self) -> str:
        """Name of the robot that the logs are of; empty before open()."""
        return self.readers[0].spec.robot if self.readers else ""

    def open(self, model: str) -> bool:
        """Open all logs; False while one does not exist yet.

        TrainingError: a log lacks the actions that the model learns from, or the logs may not be
        mixed.
        """
        if self.readers:
            return True
        places = [place for place, _ in self._config.logs]
        if not all(is_url(place) or (Path(place) / "zarr.json").exists() for place in places):
            return False
        limit = self._config.download_bytes
        self.readers = [open_log(place, download_bytes=limit) for place in places]
        specs = [(reader.path, reader.spec) for reader in self.readers]
        if reason := refusal(specs, model, self._config.allow_mixed):
            raise TrainingError(reason)
        return True

    def require_fields(self, fields: Collection[str], model: str) -> None:
        """Check that every log has these fields; images are checked by resize()."""
        names = {name for name in fields if not name.startswith("image/")}
        for reader in self.readers:
            if reason := obstacle(reader.path, reader.spec, model, names):
                raise TrainingError(reason)

    def require_training_episodes(self, which: slice) -> None:
        """Check that these logs hold more than evaluation episodes: those are never drawn."""
        for (place, _), reader in list(zip(self._config.logs, self.readers))[which]:
            marks = reader.evaluation_rows()
            if len(marks) and marks.all():
                raise TrainingError(
                    f"log: got {place}, whose {len(marks)} rows are all of evaluation episodes, "
                    "expected training episodes: others are never learned from."
                )

    def require_held_out(self) -> None:
        """Check that `hold_out` selects an episode to evaluate on."""
        share = self._config.hold_out
        tables = [r.episodes[~r.is_evaluation(r.episodes)] for r in self.readers]
        if not any(HeldOut(share).held(table).any() for table in tables):
            raise TrainingError(
                f"hold_out: got {share:g}, which selects no episode of the logs, expected at least "
                "one. Hold out more, or record more episodes."
            )

    def resize(self, cameras: Sequence[str], height: int, width: int) -> None:
        """Let every log show these cameras' images in this size [pixels]."""
        for camera in cameras:
            for reader in self.readers:
                if f"image/{camera}" not in reader.spec.fields:
                    raise TrainingError(
                        f"log: got {reader.path} with cameras {list(reader.spec.cameras)}, "
                        f"expected {camera!r}, which the model uses."
                    )
        self._note_size(cameras, height, width)
        for camera in cameras:
            self.readers = [resized(reader, camera, height, width) for reader in self.readers]

    def split_by_camera(self, cameras: Sequence[Sequence[str]], height: int, width: int) -> str:
        """Let each of some cameras be a log of its own, whose images have this size [pixels].

        cameras: of each log, at least one; they share its windows. Return the one name that all
        these logs then show their camera under.
        """
        name = cameras[0][0]
        self._note_size((name,), height, width)
        logs = list(zip(self.readers, self.shares, cameras, strict=True))
        self.readers = [
            seen_as(resized(reader, camera, height, width), camera, name)
            for reader, _, own in logs
            for camera in own
        ]
        self.shares = [share / len(own) for _, share, own in logs for _ in own]
        return name

    def _note_size(self, cameras: Sequence[str], height: int, width: int) -> None:
        shown = [self.readers[0].spec.cameras[camera][:2] for camera in cameras]
        self.resized_from = next((size for size in shown if size != (height, width)), None)
