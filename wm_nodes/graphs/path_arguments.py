"""Paths among the arguments of a graph, as run.json keeps them: absolute, so that a run continues
from any working folder. Each function takes a word and the folder that relative paths are in."""

from __future__ import annotations

from pathlib import Path

from wm_nodes.assets import pretrained
from wm_nodes.graphs.weighted_log import WeightedLog
from wm_nodes.robots.sims import background_sources


def path(word: str, base: Path) -> str:
    """Return a path, which need not exist, absolute and without links; "" for none."""
    return str((base / Path(word).expanduser()).resolve()) if word else ""


def robot_file(word: str, base: Path) -> str:
    """Return the name of a robot as it is, the path of a YAML file absolute."""
    return path(word, base) if word.endswith((".yaml", ".yml")) else word


def weights(word: str, base: Path) -> str:
    """Return the name of shipped weights as it is, a folder absolute."""
    return word if word in pretrained() else _existing(word, base)


def background(word: str, base: Path) -> str:
    """Return `none` or procedural:NAME as it is, a folder of videos absolute."""
    named = word == background_sources.NONE or word.startswith("procedural:")
    return word if named else _existing(word, base)


def logs(words: str, base: Path) -> str:
    """Return LOG or LOG:WEIGHT, with commas between, each as LOG:WEIGHT with an absolute path; a
    URL, and what is neither, as it is."""
    return ",".join(_log(word, base) for word in filter(None, map(str.strip, words.split(","))))


def _log(word: str, base: Path) -> str:
    try:
        log = WeightedLog.parse(word)
    except ValueError:
        return word  # refused where logs are read
    return word if log.is_url else str(WeightedLog(path(log.path, base), log.weight))


def _existing(word: str, base: Path) -> str:
    """Return what exists as an absolute path; else the word, which is refused as it was typed."""
    place = base / Path(word).expanduser()
    return str(place.resolve()) if word and place.exists() else word
