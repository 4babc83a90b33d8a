"""An arm's driver on ROS topics: joint states, images and forces in, commands out."""
