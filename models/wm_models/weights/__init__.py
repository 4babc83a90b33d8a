"""Weights on disk, and the checkpoints of others that can be imported."""
