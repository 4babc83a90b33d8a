"""Errors that every part of a node may raise: what is wrong, got what, expected what."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

MANY = 20  # names that an error lists


class UserError(Exception):
    """A mistake of the user: shown in a line or two, exit code 2."""


class MessageError(Exception):
    """A message that must not be used. `reason` is a short name to count it by."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason


@contextmanager
def user_errors(*kinds: type[Exception]) -> Iterator[None]:
    """Turn errors of these kinds into UserError, which spin.py shows without a traceback."""
    try:
        yield
    except kinds as error:
        raise UserError(str(error)) from error


def closest(word: str, names: Iterable[str], cutoff: float = 0.4) -> list[str]:
    """Return up to three names most like the word."""
    return difflib.get_close_matches(word, list(names), n=3, cutoff=cutoff)


def did_you_mean(word: str, names: Iterable[str]) -> str:
    """Return "Did you mean 'x'? " for a word close to one of the names, else ""."""
    near = difflib.get_close_matches(word, list(names), n=1)
    return f"Did you mean {near[0]!r}? " if near else ""


def unknown(kind: str, word: str, names: Iterable[str]) -> str:
    """Return the error of an unknown name, with all names, or the closest ones of a long list."""
    all_names = list(names)
    near = closest(word, all_names, cutoff=0.5)
    hint = f" Closest: {', '.join(near)}." if near else ""
    listed = f"{len(all_names)} names" if near and len(all_names) > MANY else ", ".join(all_names)
    return f"{kind}: got {word!r}, expected one of {listed}.{hint}"
