"""DreamerV2 (Hafner et al. 2021)."""
