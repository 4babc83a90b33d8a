"""DreamerV3, the algorithm of 2023 (Hafner et al., Mastering Diverse Domains through World Models)."""
