"""What the control loop answers to a request."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Answer:
    """Whether a request was executed, and in words what happened or what to do instead."""

    done: bool
    text: str
