"""`wm weights import dino_wm`: from a run's folder and its dataset to weights with statistics."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from tests.wm_models.weights import released_run
from tests.wm_models.weights.test_torch_pickle import Calls
from wm_models.encoders import pretrained
from wm_models.weights.store import load_model
from wm_nodes.cli.main import main


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("encoder") / "resnet18.safetensors"
    save_file(pretrained.make_backbone("resnet18", 224).state_dict(), path)
    return path


@pytest.fixture
def wall(tmp_path: Path) -> Path:
    """A dataset in the layout of Wall."""
    folder = tmp_path / "wall_single"
    folder.mkdir()
    g = torch.Generator().manual_seed(0)
    torch.save(torch.randn(3, 6, 2, generator=g) + 5, folder / "states.pth")
    torch.save(torch.randn(3, 6, 2, generator=g) * 3, folder / "actions.pth")
    return folder


def run_folder(tmp_path: Path, env: str, proprio: int, **parts: Any) -> Path:
    hydra = released_run.small(env__name=env, env__dataset__data_path=str(tmp_path / "elsewhere"))
    checkpoint = {**released_run.small_parts(proprio=proprio), **parts}
    return released_run.write_run(tmp_path / "outputs" / env, hydra, checkpoint)


def arguments(folder: Path, encoder: Path, *options: object) -> list[str]:
    return [
        "weights",
        "import",
        "dino_wm",
        str(folder),
        "--encoder",
        str(encoder),
        *map(str, options),
    ]


def test_statistics_of_the_dataset_are_in_the_weights(
    tmp_path: Path, wall: Path, encoder: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    folder = run_folder(tmp_path, "wall", 2)
    monkeypatch.chdir(tmp_path)
    assert main(arguments(folder, encoder, "--data", wall)) == 0
    out = capsys.readouterr().out
    assert "statistics of wall_single" in out and "runs/dino_wm-wall/weights" in out
    assert "note: decoder" in out and "epoch 7" in out
    model, manifest = load_model("runs/dino_wm-wall/weights")
    actions = torch.load(wall / "actions.pth", weights_only=True).flatten(0, 1)
    assert manifest.extra["statistics"] == "wall_single"
    torch.testing.assert_close(torch.tensor(manifest.embodiment.action_std), actions.std(0))
    low = (actions.amin(0) - actions.mean(0)) / actions.std(0)  # the box, in z-scores
    torch.testing.assert_close(torch.tensor(model.spec.action_low), low)
    assert main(["weights"]) == 0
    assert "runs/dino_wm-wall/weights" in capsys.readouterr().out
    assert main(arguments(folder, encoder, "--data", wall)) == 2  # it exists
    assert "which exists, expected a new folder" in capsys.readouterr().err


def test_pusht_needs_no_dataset(tmp_path: Path, encoder: Path) -> None:
    folder, out = run_folder(tmp_path, "pusht", 4), tmp_path / "out"
    assert main(arguments(folder, encoder, "--out", out)) == 0
    _, manifest = load_model(out)
    assert manifest.embodiment.action_mean == (-0.0087, 0.0068)
    assert manifest.embodiment.proprio_dim == 4 and manifest.embodiment.period_s == 0.1


def test_errors_are_one_line(
    tmp_path: Path, wall: Path, encoder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = run_folder(tmp_path, "wall", 2)
    malicious = run_folder(tmp_path, "point_maze", 2, optimizer=Calls(os.system, "false"))
    out = tmp_path / "out"
    for command, message in (
        (arguments(folder, encoder, "--out", out), "Give --data FOLDER"),
        (arguments(tmp_path / "none", encoder), "expected the folder of a training run"),
        (arguments(wall, encoder, "--data", wall, "--out", out), "has no hydra.yaml"),
        (arguments(malicious, encoder, "--data", wall, "--out", out), "posix.system"),
        (
            arguments(folder, encoder, "--data", encoder.parent, "--out", out),
            "no states.pth, so it is not DINO-WM's layout",
        ),
        (arguments(folder, encoder, "--data", wall, "--out", out, "--epoch", "9"), "model_9.pth"),
        (["weights", "import", "dreamer", str(folder)], "dino_wm"),
    ):
        assert main(command) == 2
        text = capsys.readouterr().err
        assert message in text and text.count("\n") == 1
        assert not out.exists()
