"""Measurements and trials of the system: benchmarks, faults, arm bring-up."""
