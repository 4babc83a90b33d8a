"""Measurements of an arm: joint states and forces, checked and merged."""
