"""Actor-critic learning shared by the families that imagine."""
