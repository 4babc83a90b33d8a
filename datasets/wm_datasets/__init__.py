"""Replay logs on disk and the samplers that read them (numpy and zarr's format, nothing else)."""

from wm_datasets.damage import Damage, LogDamageError
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
from wm_datasets.sampler import Sampler
from wm_datasets.sensor import SensorSpec
from wm_datasets.spec import LogSpec, Source, VectorSpec
from wm_datasets.summary import LogSummary, describe

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
