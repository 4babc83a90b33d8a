"""rosbag2, in MCAP or SQLite: bags of our own topics, and of others by a topic mapping."""

from wm_datasets.formats.rosbag.exporter import Export
from wm_datasets.formats.rosbag.importer import Import

__all__ = ["Export", "Import"]
