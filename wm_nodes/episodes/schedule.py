"""Which episode comes next, training or evaluation, with which seed, and when a run is over."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from wm_nodes.atomic_file import write_json
from wm_nodes.robots.seeds import episode_seed


@dataclass(frozen=True)
class Goals:
    """When to evaluate and when to end; 0 means never."""

    episodes: int = 0  # training episodes (evaluation episodes where `evaluate`)
    steps: int = 0  # simulator steps of those episodes
    eval_every: int = 0  # decisions of training between blocks of evaluation
    eval_episodes: int = 20
    evaluate: bool = False  # evaluation episodes only

    def reached(self, done: Counts) -> bool:
        """Is the run over, but for a last block of evaluation?"""
        enough = self.episodes and done.episodes >= self.episodes
        return bool(enough or (self.steps and done.steps >= self.steps))


@dataclass
class Counts:
    """What was done so far. Evaluation within a training run is counted on its own."""

    episodes: int = 0
    steps: int = 0  # simulator steps, action repeat included
    decisions: int = 0
    eval_episodes: int = 0
    eval_left: int = 0  # of the present block
    evaluated_at: int = 0  # decisions, at the last block
    stamp_ns: int = 0


@dataclass(frozen=True)
class Episode:
    """What to do next."""

    index: int
    seed: int
    explore: bool


class Schedule:
    """Hands out episodes in order. Equal seed and goals give equal ones, also after a restart."""

    def __init__(self, goals: Goals, seed: int, counts: Counts | None = None) -> None:
        self.goals, self.seed, self.counts = goals, seed, counts or Counts()

    @property
    def over(self) -> bool:
        return (
            self.goals.reached(self.counts) and not self._block_due() and not self.counts.eval_left
        )

    def next(self) -> Episode | None:
        """Return the next episode, None when the run is over."""
        if self.over:
            return None
        if self._block_due():
            self.counts.eval_left = self.goals.eval_episodes
            self.counts.evaluated_at = self.counts.decisions
        if self.goals.evaluate:
            return self._episode(self.counts.episodes, explore=False)
        if self.counts.eval_left:
            return self._episode(self.counts.eval_episodes, explore=False)
        return self._episode(self.counts.episodes, explore=True)

    def decided(self, episode: Episode, sim_steps: int) -> None:
        """One decision of `episode` was executed; it took so many simulator steps."""
        if episode.explore or self.goals.evaluate:
            self.counts.decisions += 1
            self.counts.steps += sim_steps

    def ended(self, episode: Episode) -> None:
        """An episode came to its end."""
        if episode.explore or self.goals.evaluate:
            self.counts.episodes += 1
        else:
            self.counts.eval_episodes += 1
            self.counts.eval_left -= 1

    def _block_due(self) -> bool:
        goals, done = self.goals, self.counts
        if goals.evaluate or not goals.eval_every or done.eval_left:
            return False
        since = done.decisions - done.evaluated_at
        return since >= goals.eval_every or (goals.reached(done) and since > 0)

    def _episode(self, index: int, *, explore: bool) -> Episode:
        stream = "train" if explore else "evaluation"
        return Episode(index, episode_seed(self.seed, index, stream), explore)


class Progress:
    """Counts on disk, so that a restarted robot goes on where it was; an empty path keeps none."""

    def __init__(self, path: str) -> None:
        self._path = Path(path) if path else None

    def load(self) -> Counts:
        """Return the counts of the file, or fresh ones; ValueError if it is not ours."""
        if self._path is None or not self._path.exists():
            return Counts()
        try:
            return Counts(**json.loads(self._path.read_text()))
        except (TypeError, ValueError, OSError) as error:
            raise ValueError(
                f"progress: {self._path} cannot be read ({error}). "
                "Right: delete it to count afresh."
            ) from None

    def save(self, counts: Counts) -> None:
        """Write the counts whole or not at all."""
        if self._path is None:
            return
        write_json(self._path, asdict(counts))
