"""Training: replay logs in, weights out."""
