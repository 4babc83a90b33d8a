"""Manifests and folders of weights from other tools: refused in one line, never a traceback."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from wm_models.errors import ModelError
from wm_models.weights.bounded_json import load_object
from wm_models.weights.manifest import WeightsError
from wm_models.weights.store import WeightStore, load_model, read_manifest

VALID = {"version": 3, "preset": "mwm_cpu", "action_dim": 2, "sha256": {"a.safetensors": "0" * 64}}
EMBODIMENT = {
    "action_low": [-1, -1],
    "action_high": [1, 1],
    "action_mean": [0, 0],
    "action_std": [1, 1],
}


def deep(levels: int) -> str:
    return '{"extra":' * levels + "1" + "}" * levels


def changed(**parts: object) -> str:
    return json.dumps({**VALID, **parts})


INVALID = {
    "empty": "",
    "no JSON": "{",
    "a list": "[]",
    "a number": "3",
    "null": "null",
    "nested": deep(100_000),
    "deep": deep(20),
    "long": changed(source_log="x" * (2 << 20)),
    "many": changed(extra={"list": [0] * 30_000}),
    "schema 99": changed(schema=99),
    "schema text": changed(schema="1"),
    "schema true": changed(schema=True),
    "unknown": changed(more=1),
    "missing": json.dumps({"version": 1}),
    "version text": changed(version="3"),
    "version true": changed(version=True),
    "version negative": changed(version=-1),
    "version huge": changed(version=10**30),
    "version float": changed(version=3.5),
    "preset number": changed(preset=3),
    "preset list": changed(preset=["mwm_cpu"]),
    "action_dim 0": changed(action_dim=0),
    "action_dim huge": changed(action_dim=10**9),
    "action_dim null": changed(action_dim=None),
    "step text": changed(step="many"),
    "parent text": changed(parent="one"),
    "metrics list": changed(metrics=[1]),
    "metrics text": changed(metrics={"loss": "low"}),
    "sha256 list": changed(sha256=["a"]),
    "sha256 path": changed(sha256={"../a.safetensors": "0" * 64}),
    "sha256 short": changed(sha256={"a.safetensors": "0"}),
    "sha256 number": changed(sha256={"a.safetensors": 1}),
    "extra text": changed(extra="no"),
    "body text": changed(body="no"),
    "body list": changed(body=[1]),
    "body empty": changed(body={}),
    "body unknown": changed(body={**EMBODIMENT, "wheels": [1]}),
    "body text numbers": changed(body={**EMBODIMENT, "action_low": ["a", "b"]}),
    "body discrete text": changed(body={**EMBODIMENT, "discrete": "yes"}),
    "body discrete number": changed(body={**EMBODIMENT, "discrete": 1}),
    "body discrete in -1..1": changed(body={**EMBODIMENT, "discrete": True}),
    "body cameras text": changed(body={**EMBODIMENT, "cameras": "front"}),
    "body cameras numbers": changed(body={**EMBODIMENT, "cameras": [1, 2]}),
    "body upside down": changed(body={**EMBODIMENT, "action_low": [2, 2]}),
    "body other size": changed(body=EMBODIMENT, action_dim=3),
    "body infinite": changed(body={**EMBODIMENT, "action_mean": [float("inf"), 0]}),
    "body still": changed(body={**EMBODIMENT, "action_std": [0, 1]}),
}


@pytest.mark.parametrize("kind", INVALID)
def test_an_invalid_manifest_is_refused_in_one_line(tmp_path: Path, kind: str) -> None:
    (tmp_path / "manifest.json").write_text(INVALID[kind])
    with pytest.raises(WeightsError) as error:
        read_manifest(tmp_path)
    assert "\n" not in str(error.value) and "manifest.json" in str(error.value)


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_bytes(b"\xff\xfe{}")
    with pytest.raises(WeightsError, match="not a manifest"):
        read_manifest(tmp_path)


def test_a_newer_schema_is_refused_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text(INVALID["schema 99"])
    with pytest.raises(WeightsError, match="got schema 99, this version reads 1: update"):
        read_manifest(tmp_path)


def test_a_valid_manifest_is_read_also_with_metrics_that_are_not_finite(tmp_path: Path) -> None:
    for parts in ({}, {"body": EMBODIMENT}, {"metrics": {"loss": float("nan")}}, {"parent": 2}):
        (tmp_path / "manifest.json").write_text(changed(**parts))
        assert read_manifest(tmp_path).version == 3


@pytest.mark.parametrize("preset", ["mwm_none", "", "../mwm_cpu", "mwm_cpu\n"])
def test_a_preset_that_does_not_exist_is_refused(tmp_path: Path, preset: str) -> None:
    (tmp_path / "manifest.json").write_text(changed(preset=preset))
    with pytest.raises((WeightsError, ModelError)):
        load_model(tmp_path)


@pytest.mark.parametrize("text", ["²", "1e3", "-1", "", "9" * 5000, "../1"])
def test_a_pointer_that_is_no_number_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "latest").write_text(text)
    with pytest.raises(WeightsError):
        WeightStore(tmp_path).latest()
    (tmp_path / "²").mkdir()
    assert WeightStore(tmp_path).versions() == []


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (deep(17), "deeper nesting"),
        (deep(100_000), "deeper nesting"),
        ('{"a": NaN}', "NaN"),
        ('{"a": 1e999}', "not finite"),
        ('{"a": "' + "x" * 2000 + '"}', "at most 1000 bytes"),
        ("[1]", "expected an object"),
    ],
)
def test_json_out_of_bounds_is_refused(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        load_object(text, most_bytes=1000 if "xx" in text else 1 << 20)
    assert load_object(deep(15)) == json.loads(deep(15))
