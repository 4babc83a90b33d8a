"""MuDreamer: a DreamerV3 that learns without reconstruction (Burchi and Timofte)."""
