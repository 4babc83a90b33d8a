"""DreamerV3, the algorithm of 2023 (Hafner et al., arXiv 2301.04104)."""
