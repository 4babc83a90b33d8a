"""`wm pretrain --model apv_cpu --log VIDEOS`: learn from logs without actions, for APV."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from wm_models.registry import PRETRAINING
from wm_nodes.cli.train import Learning, learn


@dataclass(frozen=True)
class Pretrain(Learning):
    """Learn a model of videos, with which a model of APV then begins. --run NAME resumes a run.

    Logs need images only: actions and rewards are ignored, and logs of any robots and tasks may be
    given together. --model names the model that will begin with the weights, or its pre-training.
    Afterwards: wm train --pretrained RUN, or wm launch sim_metaworld pretrained:=RUN. Options that
    change what is learned are fixed in run.json when a run begins, as of wm train.
    """

    COMMAND = "pretrain"

    model: str = "apv_cpu"
    """Model preset to pre-train for: apv, apv_dmc or apv_cpu."""
    camera: str = ""
    """Cameras to learn from, with commas between: each that a log has is a video of its own. Empty:
    of every log the first of the model's image size, or its only one. Images are resized."""

    @classmethod
    def models(cls) -> Sequence[str]:
        return tuple(dict.fromkeys((*PRETRAINING, *PRETRAINING.values())))

    @classmethod
    def preset_of(cls, model: str) -> str:
        return PRETRAINING.get(model, model)

    def continued(self, run: str, robot: str) -> str:
        begins = next((each for each, own in PRETRAINING.items() if own == self.model), "")
        return f"begin with it: wm train --model {begins} --pretrained {run} --log LOG"


def run(words: Sequence[str]) -> int:
    """Run `wm pretrain WORDS`."""
    learn(Pretrain, words)
    return 0
