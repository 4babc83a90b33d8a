"""`wm arm check`: bring-up check of an arm, one line for each thing that is checked."""
