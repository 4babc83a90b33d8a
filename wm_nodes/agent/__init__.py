"""One observation in, actions out, without ROS: shared by the nodes and `wm eval`."""
