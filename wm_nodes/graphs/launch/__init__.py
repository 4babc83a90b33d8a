"""Start a graph: as supervised processes, or through `ros2 launch`."""
