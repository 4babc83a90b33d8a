"""LeRobotDataset, v2.1 and v3.0: tables in Parquet, images in them or in MP4 beside."""

from wm_datasets.formats.lerobot.exporter import Export
from wm_datasets.formats.lerobot.importer import Import

__all__ = ["Export", "Import"]
