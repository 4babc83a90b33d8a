"""Robots and simulators behind one contract (base.py): Meta-World first, arms alike."""
