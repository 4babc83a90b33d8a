"""`wm train` with the model `tiny`, as a separate process:  python train_tiny.py ARGUMENTS..."""

import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "models"), str(ROOT / "datasets")]

import torch  # noqa: E402

from tests.wm_nodes.tiny import TINY  # noqa: E402
from wm_models.registry import PRESETS  # noqa: E402
from wm_nodes.cli import train  # noqa: E402

if __name__ == "__main__":
    torch.set_num_threads(1)
    PRESETS["tiny"] = TINY
    train.MODELS = ("tiny",)
    sys.exit(train.run(["--model", "tiny", *sys.argv[1:]]))
