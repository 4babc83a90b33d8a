"""What the nodes do, free of ROS: numpy and torch in, numpy and torch out."""
