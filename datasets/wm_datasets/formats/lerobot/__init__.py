"""LeRobotDataset, v2.1 and v3.0: tables in Parquet, pictures in them or in MP4 beside."""

from wm_datasets.formats.lerobot.reading import Import
from wm_datasets.formats.lerobot.writing import Export

__all__ = ["Export", "Import"]
