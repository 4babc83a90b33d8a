"""Seeds of episodes, by stream: training, evaluation, search."""

from __future__ import annotations

import numpy as np


def episode_seed(seed: int, index: int, stream: str = "train") -> int:
    """Return the seed of episode `index` of a stream (train, evaluation, search) of a run's seed.

    Streams never share an episode, so a policy is not evaluated on episodes that it was
    trained or chosen on.
    """
    streams = ("train", "evaluation", "search")
    if stream not in streams:
        raise ValueError(f"stream: got {stream!r}, expected one of {', '.join(streams)}")
    entropy = (int(seed), streams.index(stream), int(index))
    return int(np.random.SeedSequence(entropy).generate_state(1, np.uint32)[0])
