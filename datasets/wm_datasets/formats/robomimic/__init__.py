"""HDF5 in the robomimic layout: data/demo_<i>/{actions, rewards, dones, obs/*, next_obs/*}.

What the layout has no place for goes into extra items that robomimic does not look at: the
attribute `wm_log` of `data` (the spec) and the group `wm` of each demo (one dataset per field).
"""

from wm_datasets.formats.robomimic.exporter import Export
from wm_datasets.formats.robomimic.importer import Import

__all__ = ["Export", "Import"]
