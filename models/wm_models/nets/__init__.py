"""Layers and helpers that two or more model families share."""
