"""What an arm may do: limits, safety filter, stopping, supervisor, last gate."""
