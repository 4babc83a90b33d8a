"""The manifest of one version of weights: a record, read from a file of any origin."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from wm_models.errors import ModelError
from wm_models.interface.embodiment import Embodiment
from wm_models.weights.bounded_json import MOST_BYTES, load_object

SCHEMA = 1
LARGEST = 2**63 - 1
MOST_ACTIONS = 1024
DIGEST = re.compile(r"[0-9a-f]{64}")
FILE = re.compile(r"\w[\w.-]{0,120}\.safetensors", re.ASCII)


class WeightsError(RuntimeError):
    """Weights are missing, damaged, or another model's."""


@dataclass(frozen=True)
class Manifest:
    """What a version of weights is, and where it came from."""

    version: int
    preset: str
    action_dim: int
    step: int = 0  # updates of the learner
    parent: int | None = None
    source_log: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)
    sha256: Mapping[str, str] = field(default_factory=dict)  # file -> digest
    extra: Mapping[str, Any] = field(default_factory=dict)  # task, camera, render preset, ...
    body: Mapping[str, Any] | None = None  # the robot it is for; None: actions in -1..1
    settings: Mapping[str, Any] = field(default_factory=dict)  # in which it differs from the preset
    schema: int = SCHEMA

    @property
    def embodiment(self) -> Embodiment:
        """The embodiment that the model was built for."""
        return (
            Embodiment.unit(self.action_dim)
            if self.body is None
            else Embodiment.from_json(self.body)
        )

    @property
    def digest(self) -> str:
        """One digest for the whole version."""
        joined = "".join(f"{name}{sha}" for name, sha in sorted(self.sha256.items()))
        return hashlib.sha256(joined.encode()).hexdigest()


def parse_manifest(path: Path) -> Manifest:
    """Read and check a manifest.json; WeightsError says what is wrong in one line. OSError."""
    with path.open("rb") as stream:
        data = stream.read(MOST_BYTES + 1)
    try:
        entries = load_object(data.decode(), finite=False)  # metrics of a bad run
        known = {spec.name for spec in fields(Manifest)}
        if entries.get("schema", SCHEMA) != SCHEMA:
            raise ValueError(
                f"got schema {entries['schema']!r}, this version reads {SCHEMA}: update wm_nodes"
            )
        if unknown := sorted(entries.keys() - known):
            raise ValueError(f"got unknown entries {unknown[:3]}")
        if missing := sorted({"version", "preset", "action_dim"} - entries.keys()):
            raise ValueError(f"got no {', '.join(missing)}, expected them too")
        manifest = Manifest(**entries)
        _check(manifest)
        return manifest
    except (ValueError, TypeError, ModelError) as error:
        raise WeightsError(f"weights: {path} is not a manifest of ours ({error}).") from None


def _check(m: Manifest) -> None:
    """Raise ValueError for the first entry of a wrong type or size; ModelError for `body`."""
    _whole("version", m.version)
    _whole("action_dim", m.action_dim, 1, MOST_ACTIONS)
    _whole("step", m.step)
    if m.parent is not None:
        _whole("parent", m.parent)
    _whole("schema", m.schema, SCHEMA, SCHEMA)
    for name in ("preset", "source_log"):
        _typed(name, getattr(m, name), str, "text")
    for name in ("metrics", "sha256", "extra"):
        _typed(name, getattr(m, name), dict, "an object")
    _check_entries(m)
    _typed("settings", m.settings, dict, "an object")
    if m.body is not None:
        _check_embodiment(m.body, m.action_dim)


def _check_entries(m: Manifest) -> None:
    for name, value in m.metrics.items():
        if type(value) not in (int, float):
            raise ValueError(f"got metrics {name} {value!r}, expected a number")
    for name, digest in m.sha256.items():
        if not FILE.fullmatch(name) or type(digest) is not str or not DIGEST.fullmatch(digest):
            raise ValueError(f"got sha256 {name!r}: {digest!r}, expected NAME.safetensors and hex")


def _typed(name: str, value: object, kind: type, expected: str) -> None:
    if type(value) is not kind:
        raise ValueError(f"got {name} {value!r:.80}, expected {expected}")


def _check_embodiment(entries: object, action_dim: int) -> None:
    if type(entries) is not dict:
        raise ValueError(f"got body of type {type(entries).__name__}, expected an object")
    for name, value in entries.items():
        numbers = value if type(value) is list else [value]
        if name not in Embodiment.__dataclass_fields__ or len(numbers) > MOST_ACTIONS:
            raise ValueError(f"got body entry {name!r}, expected those of a robot")
        if name == "cameras":
            if type(value) is not list or any(type(each) is not str for each in value):
                raise ValueError(f"got body cameras {value!r:.80}, expected a list of names")
            continue
        if name == "discrete":
            _typed("body discrete", value, bool, "true or false")
            continue
        if any(type(n) not in (int, float) or not abs(n) < LARGEST for n in numbers):
            raise ValueError(f"got body {name} {value!r}, expected finite numbers")
    if (size := Embodiment.from_json(entries).action_dim) != action_dim:
        raise ValueError(f"got a body with {size} actions, and action_dim {action_dim}")


def _whole(name: str, value: object, low: int = 0, high: int = LARGEST) -> None:
    if type(value) is not int or not low <= value <= high:
        raise ValueError(f"got {name} {value!r}, expected a whole number from {low} to {high}")
