"""Contract suites for a new model or planner (they need pytest)."""
