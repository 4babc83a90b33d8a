"""Robots and simulators behind one contract (robot.py)."""
