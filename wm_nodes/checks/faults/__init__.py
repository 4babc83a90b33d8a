"""Breaking everything around an arm, with real processes, and watching what it is told to do."""
