"""Errors that every part of a node may raise; each says what, given and right."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class UserError(Exception):
    """A mistake of the person who started the program: shown in a line or two, exit code 2."""


class MessageError(Exception):
    """A message that must not be used. `reason` is a short name to count it by."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason


@contextmanager
def user_errors(*kinds: type[Exception]) -> Iterator[None]:
    """Turn errors of the given kinds into UserError, which spin.py shows without a traceback."""
    try:
        yield
    except kinds as error:
        raise UserError(str(error)) from error
