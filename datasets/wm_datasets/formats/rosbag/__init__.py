"""rosbag2, in MCAP or SQLite: bags of our own topics, and of others by a topic mapping."""

from wm_datasets.formats.rosbag.reading import Import
from wm_datasets.formats.rosbag.writing import Export

__all__ = ["Export", "Import"]
