"""The control loop: when an action is executed. Neither torch nor ROS in here."""
