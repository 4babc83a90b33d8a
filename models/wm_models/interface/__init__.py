"""Contracts between world models, planners and learners."""
