"""Which episode is next, training or evaluation, with which seed, and when a run is over."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from wm_nodes.atomic_file import write_json
from wm_nodes.robots.seeds import episode_seed


@dataclass(frozen=True)
class StopCriteria:
    """When to evaluate and when to end; 0 means never."""

    episodes: int = 0  # training episodes (evaluation episodes where `evaluate`)
    steps: int = 0  # simulator steps of those episodes
    eval_every: int = 0  # agent steps of training between blocks of evaluation
    eval_episodes: int = 20
    evaluate: bool = False  # evaluation episodes only

    def reached(self, counts: Counts) -> bool:
        """Is the run over, except for a last block of evaluation?"""
        enough = self.episodes and counts.episodes >= self.episodes
        return bool(enough or (self.steps and counts.steps >= self.steps))


@dataclass
class Counts:
    """Counts of a run so far. Evaluation within a training run has counts of its own."""

    episodes: int = 0
    steps: int = 0  # simulator steps, action repeat included
    decisions: int = 0  # agent steps
    eval_episodes: int = 0
    eval_left: int = 0  # of the current block
    evaluated_at: int = 0  # `decisions` at the last block
    stamp_ns: int = 0


@dataclass(frozen=True)
class Episode:
    """One episode of a run: its number, its seed, and whether actions explore."""

    index: int
    seed: int
    explore: bool


class Schedule:
    """Episodes in order. Equal seed and criteria give equal episodes, also after a restart."""

    def __init__(self, criteria: StopCriteria, seed: int, counts: Counts | None = None) -> None:
        self.criteria, self.seed, self.counts = criteria, seed, counts or Counts()

    @property
    def over(self) -> bool:
        return (
            self.criteria.reached(self.counts)
            and not self._block_due()
            and not self.counts.eval_left
        )

    def next(self) -> Episode | None:
        """Return the next episode, None when the run is over."""
        if self.over:
            return None
        if self._block_due():
            self.counts.eval_left = self.criteria.eval_episodes
            self.counts.evaluated_at = self.counts.decisions
        if self.criteria.evaluate:
            return self._episode(self.counts.episodes, explore=False)
        if self.counts.eval_left:
            return self._episode(self.counts.eval_episodes, explore=False)
        return self._episode(self.counts.episodes, explore=True)

    def count_step(self, episode: Episode, sim_steps: int) -> None:
        """Count one agent step of `episode`, executed for `sim_steps` simulator steps."""
        if episode.explore or self.criteria.evaluate:
            self.counts.decisions += 1
            self.counts.steps += sim_steps

    def count_episode(self, episode: Episode) -> None:
        """Count an episode that has ended."""
        if episode.explore or self.criteria.evaluate:
            self.counts.episodes += 1
        else:
            self.counts.eval_episodes += 1
            self.counts.eval_left -= 1

    def _block_due(self) -> bool:
        criteria, counts = self.criteria, self.counts
        if criteria.evaluate or not criteria.eval_every or counts.eval_left:
            return False
        since = counts.decisions - counts.evaluated_at
        return since >= criteria.eval_every or (criteria.reached(counts) and since > 0)

    def _episode(self, index: int, *, explore: bool) -> Episode:
        stream = "train" if explore else "evaluation"
        return Episode(index, episode_seed(self.seed, index, stream), explore)


class CountsFile:
    """Counts on disk, so that a restarted robot node continues its run; empty path: no file."""

    def __init__(self, path: str) -> None:
        self._path = Path(path) if path else None

    def load(self) -> Counts:
        """Return the counts of the file, zeros without one; ValueError if it is unreadable."""
        if self._path is None or not self._path.exists():
            return Counts()
        try:
            return Counts(**json.loads(self._path.read_text()))
        except (TypeError, ValueError, OSError) as error:
            raise ValueError(
                f"progress: got {self._path}, which cannot be read ({error}), expected counts of a "
                "run as JSON. Delete the file to start from zero."
            ) from None

    def save(self, counts: Counts) -> None:
        """Replace the file atomically."""
        if self._path is None:
            return
        write_json(self._path, asdict(counts))
