"""Files of a log on disk: segments, columns, manifest, locks."""
