"""Audit of an arm's commands and motion while faults are injected: one module per promise."""
