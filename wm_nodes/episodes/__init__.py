"""Episodes of one robot: scheduled, run, recorded, played back."""
