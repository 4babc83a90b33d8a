"""Videos, plots and reports of runs and logs."""
