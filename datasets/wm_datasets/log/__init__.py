"""The replay log: one writer, any number of readers, one zarr v3 group on disk."""

from wm_datasets.log.reader import LogReader
from wm_datasets.log.writer import LogWriter

__all__ = ["LogReader", "LogWriter"]
