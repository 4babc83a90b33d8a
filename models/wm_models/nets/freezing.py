"""Gradients through a module whose own weights do not learn from them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from torch import nn


@contextmanager
def frozen(*modules: nn.Module) -> Iterator[None]:
    """Let gradients pass through ``modules`` without reaching their weights."""
    with ExitStack() as stack:
        for module in modules:
            parameters = [p for p in module.parameters() if p.requires_grad]
            for parameter in parameters:
                parameter.requires_grad_(False)
                stack.callback(parameter.requires_grad_, True)
        yield
