"""Where an arm's links are: model files, kinematics, collisions, descriptions."""
