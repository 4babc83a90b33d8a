"""Measurements of speed: `run()` is the entry; each file measures one part."""

from wm_nodes.checks.bench.rows import Row, save, table
from wm_nodes.checks.bench.runner import GROUPS, run

__all__ = ["GROUPS", "Row", "run", "save", "table"]
