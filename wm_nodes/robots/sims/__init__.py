"""Simulators behind the Robot interface, one file each."""
