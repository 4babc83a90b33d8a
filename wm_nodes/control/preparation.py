"""Where a robot is between two episodes: is one prepared or under way, is the robot at home."""

from __future__ import annotations


class Preparation:
    """home: the robot goes to its home pose before each episode. confirm_home: only when the
    operator calls `go_home`.

    acting: an episode is under way. ending: no episode follows. called: the operator has called
    `go_home`. at_home: the robot is where the next episode may begin.
    """

    def __init__(self, *, home: bool, confirm_home: bool) -> None:
        self._home, self._confirm_home = home, confirm_home
        self._prepared = False
        self.acting = self.ending = self.called = self.at_home = False

    def prepare(self) -> None:
        """The next episode is known: bring the robot to where it can begin."""
        self._prepared, self.acting, self.ending = True, False, False
        self.at_home = False

    def begin(self) -> None:
        """The prepared episode begins."""
        self._prepared, self.acting = False, True

    def end(self) -> None:
        """No episode follows."""
        self._prepared, self.acting, self.ending, self.called = False, False, True, False

    @property
    def between(self) -> bool:
        """Is the next episode prepared and not begun?"""
        return self._prepared and not self.acting and not self.ending

    @property
    def is_home(self) -> bool:
        """May the next episode begin where the robot is?"""
        return self.at_home or not self._home

    @property
    def needs_home(self) -> bool:
        """Is the robot to move to its home pose now?"""
        if self.acting or self.ending:
            return False
        scheduled = self._home and self._prepared and not self._confirm_home
        return self.called or (scheduled and not self.at_home)

    @property
    def needs_call(self) -> bool:
        """Does the way home wait for the operator's call?"""
        return self._home and self._confirm_home and not self.called
