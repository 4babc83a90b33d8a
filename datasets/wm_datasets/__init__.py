"""Replay logs on disk and the samplers that read them (numpy and zarr's format, nothing else)."""

from wm_datasets.errors import (
    LogAbsentError,
    LogBusyError,
    LogEmptyError,
    LogError,
    LogFormatError,
    LogFullError,
    LogReadError,
    LogRowError,
    LogSpecError,
)
from wm_datasets.log import LogReader, LogWriter
from wm_datasets.log.summary import LogSummary, describe
from wm_datasets.sampling.sampler import Sampler
from wm_datasets.sensors import SensorSpec
from wm_datasets.spec import LogSpec, Source, VectorSpec
from wm_datasets.storage.damage import Damage, LogDamageError

__all__ = [
    "Damage",
    "LogAbsentError",
    "LogBusyError",
    "LogDamageError",
    "LogEmptyError",
    "LogError",
    "LogFormatError",
    "LogFullError",
    "LogReadError",
    "LogReader",
    "LogRowError",
    "LogSpec",
    "LogSpecError",
    "LogSummary",
    "LogWriter",
    "Sampler",
    "SensorSpec",
    "Source",
    "VectorSpec",
    "describe",
]
