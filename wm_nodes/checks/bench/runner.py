"""`wm bench`: all measurements, one table, two files."""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from wm_models.errors import ModelError
from wm_nodes.checks.bench import machine
from wm_nodes.checks.bench.rows import Row, save, table
from wm_nodes.errors import UserError, user_errors
from wm_nodes.robots.robot import RobotError

# group -> (module, packages besides numpy, zarr and torch, settings with --quick)
GROUPS: Mapping[str, tuple[str, tuple[str, ...], dict[str, object]]] = {
    "machine": ("machine", (), {"repeats": 5}),
    "models": ("models", (), {"updates": 3, "agent_steps": 10}),
    "sampler": ("sampler", (), {"rows": 404, "repeats": 5}),
    "log": ("log", (), {"rows": 300, "seconds": 1.0, "reopened_rows": 20_000}),
    "archive": ("archive", ("obstore", "moto", "boto3"), {"rows": 404, "repeats": 3}),
    "simulator": ("simulator", ("metaworld", "mujoco", "dm_control"), {"agent_steps": 4}),
    "graph": ("graph", ("rclpy",), {"agent_steps": 60}),
    "environments": ("environments", ("rclpy", "metaworld"), {"seconds": 5.0}),
    "jitter": ("jitter", ("rclpy", "mujoco"), {"windows": 1}),
}
OF_A_MODEL = ("models", "graph", "environments", "jitter")


def run(
    only: Sequence[str] = (),
    *,
    model: str = "mwm_cpu",
    threads: int = 1,
    quick: bool = False,
    folder: str | Path | None = None,
    show: Callable[[str], object] = print,
) -> list[Row]:
    """Measure the groups named in ``only`` (all, if empty), with ``threads`` of torch.

    Shows the name of each group, and a table in the end; with ``folder`` writes bench.json and
    bench.csv there. Groups that cannot be measured here (no simulator, no ROS) are skipped with a
    note, or an error if ``only`` names them. ``quick`` takes fewer repeats.
    """
    names = _chosen(only)
    about = machine.describe()
    show(machine.headline(about))
    rows: list[Row] = []
    with machine.threads(threads):
        for name in names:
            show(f"{name} ...")
            try:
                rows += _measure(name, model, quick)
            except UserError as error:
                if only:
                    raise
                show(f"{name}: skipped. {error}")
            gc.collect()
    show(table(rows))
    if folder is not None:
        paths = save(rows, Path(folder), about)
        show("written: " + ", ".join(map(str, paths)))
    return rows


def _chosen(only: Sequence[str]) -> list[str]:
    unknown = sorted(set(only) - set(GROUPS))
    if unknown:
        raise UserError(
            f"group: got {', '.join(map(repr, unknown))}, expected {', '.join(GROUPS)}."
        )
    return [name for name in GROUPS if not only or name in only]


def _measure(name: str, model: str, quick: bool) -> list[Row]:
    module, needs, settings = GROUPS[name]
    missing = [need for need in needs if find_spec(need) is None]
    if missing:
        raise UserError(f"{name}: {', '.join(missing)} not installed.")
    options = dict(settings) if quick else {}
    if name in OF_A_MODEL:
        options["model"] = model
    with user_errors(RobotError, ModelError):
        rows: list[Row] = import_module(f"wm_nodes.checks.bench.{module}").run(**options)
    return rows
