"""The robot's YAML of an arm: strict sections, checked against the model."""
