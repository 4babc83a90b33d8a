"""Training runs: what a log tells a learner besides batches."""
