"""Model families, one folder each; no family imports another."""
