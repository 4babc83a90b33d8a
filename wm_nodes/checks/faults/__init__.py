"""Breaking everything around an arm, with real processes, and auditing its commands."""
