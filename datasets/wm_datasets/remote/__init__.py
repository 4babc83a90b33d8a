"""Logs in an object store: uploaded while they grow, read from there."""
