"""Streams of a seed never share an episode."""

from __future__ import annotations

from wm_nodes.robots.seeds import episode_seed


def test_streams_of_a_seed_share_no_episode():
    seeds = {
        episode_seed(seed, index, stream)
        for seed in range(3)
        for index in range(50)
        for stream in ("train", "evaluation", "search")
    }
    assert len(seeds) == 3 * 50 * 3
