"""DreamerV3 as published in Nature (Hafner et al., 2025), and R2-Dreamer as a setting of it."""
