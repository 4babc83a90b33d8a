"""The gripper: its dimension of an action, and goals of its action server."""
