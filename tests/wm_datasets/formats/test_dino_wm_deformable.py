"""DINO-WM's rope and granular, and the statistics behind its models' z-scores."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from wm_datasets import LogReader
from wm_datasets.formats import CorruptInputError, FormatError, Options, load_format
from wm_datasets.formats.dino_wm_statistics import pusht_statistics, statistics
from wm_datasets.formats.transfer import import_into

torch = pytest.importorskip("torch")
EPISODES, ROWS, PARTICLES = 3, 5, 7


@pytest.fixture
def rope(tmp_path: Path) -> Path:
    """The folder of one object as the authors' loader reads it."""
    folder, g = tmp_path / "deformable" / "rope", np.random.default_rng(0)
    folder.mkdir(parents=True)
    states = g.normal(size=(EPISODES, ROWS, PARTICLES, 4))
    torch.save(torch.tensor(states, dtype=torch.float32), folder / "states.pth")
    actions = g.uniform(-3, 3, size=(EPISODES, ROWS, 4))
    torch.save(torch.tensor(actions, dtype=torch.float32), folder / "actions.pth")
    for i in range(EPISODES):
        (folder / f"{i:06d}").mkdir()
        frames = torch.from_numpy(g.integers(0, 256, (ROWS, 8, 8, 3), np.uint8))
        torch.save(frames, folder / f"{i:06d}" / "obses.pth")
    return folder


def test_rope_becomes_a_log(rope: Path, tmp_path: Path) -> None:
    """Frames and actions as they are; a zero for proprioception, particles as a sensor."""
    options = Options(period_s=3.0)
    with load_format("dino_wm").Import(rope, options) as source:
        assert source.keys == ["0", "1", "2"]
        assert ["last action" in line for line in source.losses] == [True]
        import_into(source, "rope", tmp_path / "log")
    with LogReader(tmp_path / "log") as reader:
        spec = reader.spec
        assert (spec.robot, spec.task, spec.control_period_s) == ("deformable", "rope", 3.0)
        assert spec.action is not None and spec.proprio is not None
        assert spec.action.names == ("x_start", "z_start", "x_end", "z_end")
        assert reader.episodes["length"].tolist() == [ROWS] * EPISODES
        assert not reader.read("proprio", 0, 15).any() and len(spec.proprio) == 1
        actions = torch.load(rope / "actions.pth", weights_only=True).numpy()
        assert np.array_equal(reader.read("action", 5, 9), actions[1, :4])
        states = torch.load(rope / "states.pth", weights_only=True).numpy()
        assert np.array_equal(reader.read("sensor/particles", 10, 15), states[2])
        frames = torch.load(rope / "000002" / "obses.pth", weights_only=True).numpy()
        assert np.array_equal(reader.read("image/camera", 10, 15), frames)
        exporter = load_format("dino_wm").Export(reader, Options())  # in a layout without particles
        assert any("particles" in line for line in exporter.losses)


def test_frames_of_whole_numbers_are_frames(rope: Path) -> None:
    path = rope / "000001" / "obses.pth"
    frames = torch.load(path, weights_only=True)
    torch.save(frames.float(), path)
    with load_format("dino_wm").Import(rope, Options(period_s=3.0)) as source:
        rows = list(source.rows("1"))
    assert np.array_equal(rows[2]["image/camera"], frames[2].numpy())
    torch.save(frames.float() / 255, path)
    with (
        load_format("dino_wm").Import(rope, Options(period_s=3.0)) as source,
        pytest.raises(CorruptInputError, match=r"000001/obses\.pth: got float32 frames"),
    ):
        list(source.rows("1"))


def test_files_that_do_not_fit_are_refused_with_a_reason(rope: Path) -> None:
    importer = load_format("dino_wm").Import
    with pytest.raises(FormatError, match="Give --period"):
        importer(rope, Options())
    torch.save(torch.zeros(EPISODES, ROWS + 1, 4), rope / "actions.pth")
    with pytest.raises(CorruptInputError, match=r"actions\.pth: got \(3, 6\) episodes and rows"):
        importer(rope, Options(period_s=3.0))
    torch.save(torch.zeros(EPISODES, ROWS, 4), rope / "states.pth")
    with pytest.raises(CorruptInputError, match=r"states\.pth: got shape \(3, 5, 4\), expected 4"):
        importer(rope, Options(period_s=3.0))


def test_statistics_of_rope(rope: Path) -> None:
    """1e-6 on top of every deviation, and a proprioception of zeros."""
    actions = torch.load(rope / "actions.pth", weights_only=True).flatten(0, 1)
    measured = statistics(rope)
    np.testing.assert_allclose(measured.action_mean, actions.mean(0), rtol=1e-5)
    np.testing.assert_allclose(measured.action_std, actions.std(0) + 1e-6, rtol=1e-6)
    assert (measured.proprio_mean, measured.proprio_std) == ((0.0,), (1e-6,))
    np.testing.assert_allclose(measured.action_low, actions.amin(0))


@pytest.mark.parametrize("lengths", [None, [6, 4, 5]])
def test_statistics_are_of_valid_steps(tmp_path: Path, lengths: list[int] | None) -> None:
    """PointMaze's episodes differ in length, Wall has no lengths; variance over n - 1."""
    torch.manual_seed(0)
    states, actions = torch.randn(3, 6, 4), torch.randn(3, 6, 2) * 2 + 1
    torch.save(states, tmp_path / "states.pth")
    torch.save(actions, tmp_path / "actions.pth")
    if lengths:
        torch.save(torch.tensor(lengths), tmp_path / "seq_lengths.pth")
    valid = lengths or [6] * 3
    for episodes in (None, 2):
        measured = statistics(tmp_path, episodes)
        selected = list(zip(actions, states, valid))[:episodes]
        steps, selected_states = (
            torch.cat([a[:n] for a, _, n in selected]),
            torch.cat([s[:n] for _, s, n in selected]),
        )
        np.testing.assert_allclose(measured.action_mean, steps.mean(0), rtol=1e-5)
        np.testing.assert_allclose(measured.action_std, steps.std(0), rtol=1e-5)
        np.testing.assert_allclose(
            measured.proprio_mean, selected_states.mean(0), rtol=1e-4, atol=1e-6
        )
        np.testing.assert_allclose(measured.proprio_std, selected_states.std(0), rtol=1e-5)
        np.testing.assert_allclose(measured.action_high, steps.amax(0))
    plain = statistics(tmp_path, normalised=False)
    assert (plain.action_mean, plain.proprio_std) == ((0.0, 0.0), (1.0,) * 4)


def test_statistics_of_pusht_are_the_loaders_constants(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    for name, size in (("states", 5), ("velocities", 2), ("rel_actions", 2)):
        torch.save(torch.full((2, 3, size), 50.0), tmp_path / "train" / f"{name}.pth")
    measured, constants = statistics(tmp_path), pusht_statistics()
    assert measured.action_mean == constants.action_mean == (-0.0087, 0.0068)
    assert measured.proprio_std == (101.1202, 87.0112, 74.84556075, 74.14009094)
    assert measured.action_low == (0.5, 0.5)  # pixels / 100
    assert len(pusht_statistics(velocity=False).proprio_mean) == 2
    with pytest.raises(FormatError, match=r"no states\.pth"):
        statistics(tmp_path / "nowhere")
