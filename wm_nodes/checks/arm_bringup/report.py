"""Lines of the bring-up check."""

from __future__ import annotations


class Report:
    """Prints one line for each thing checked: `ok`, `note`, or `WRONG` with the remedy.

    `problems`: how many were wrong.
    """

    def __init__(self) -> None:
        self.problems = 0

    def check(self, fine: bool, what: str, fix: str, *, wrong: str = "") -> None:
        """Report a check. fix: the remedy; wrong: the text in place of `what` if not fine."""
        self.problems += not fine
        self._print("ok" if fine else "WRONG", what if fine else wrong or what, "" if fine else fix)

    def note(self, fine: bool, what: str, fix: str) -> None:
        """Report something that does not prevent an arm from working."""
        self._print("ok" if fine else "note", what, "" if fine else fix)

    @staticmethod
    def _print(word: str, what: str, fix: str) -> None:
        print(f"{word:5}  {what}" + (f"\n       fix: {fix}" if fix else ""), flush=True)
