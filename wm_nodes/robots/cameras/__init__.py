"""Cameras: devices, files and URLs; crop, resize, intrinsics."""
