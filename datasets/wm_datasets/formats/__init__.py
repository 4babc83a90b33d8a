"""Other people's formats, both ways: one file each, behind one small contract (docs/formats.md)."""

from wm_datasets.formats.base import (
    CorruptInputError,
    Exporter,
    FormatError,
    Importer,
    MissingExtraError,
    Options,
)
from wm_datasets.formats.flipped import Flipped
from wm_datasets.formats.opening import load_format, open_exporter, open_source
from wm_datasets.formats.resized import Resized

FORMATS = {
    "robomimic": "HDF5 in the robomimic layout",
    "video": "video files, or folders of them",
    "dino_wm": "folders of DINO-WM: point_maze, wall, pusht, rope, granular",
    "rosbag": "rosbag2: MCAP or SQLite bags of ROS 2",
    "lerobot": "LeRobotDataset v3.0 and v2.1",
}

__all__ = [
    "FORMATS",
    "CorruptInputError",
    "Exporter",
    "Flipped",
    "FormatError",
    "Importer",
    "MissingExtraError",
    "Options",
    "Resized",
    "load_format",
    "open_exporter",
    "open_source",
]
