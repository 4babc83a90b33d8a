"""Model presets by name: the module of each, and a summary. The only such list.

Standard library only: graphs and commands read it without importing torch. A family is imported
when one of its presets is asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

from wm_models.errors import one_camera_only, other_actions, unknown_name

if TYPE_CHECKING:
    from wm_models.interface.preset import Preset

_APV = "wm_models.families.apv.presets"
_DREAMER_V2 = "wm_models.families.dreamer_v2.presets"
_MWM = "wm_models.families.mwm.presets"
_DREAMER_V3N = "wm_models.families.dreamer_v3n.presets"
_DINO_WM = "wm_models.families.dino_wm.presets"
_DREAMER_V3 = "wm_models.families.dreamer_v3.presets"
_MUDREAMER = "wm_models.families.mudreamer.presets"


PAPERS: Mapping[str, str] = {
    _MWM: "Masked World Models (Seo et al., CoRL 2022)",
    _DREAMER_V2: "DreamerV2 (Hafner et al., ICLR 2021)",
    _APV: "APV (Seo et al., ICML 2022)",
    _DREAMER_V3: "DreamerV3 (Hafner et al., 2023)",
    _DREAMER_V3N: "DreamerV3 (Hafner et al., Nature 2025)",
    _MUDREAMER: "MuDreamer (Burchi and Timofte, 2024)",
    _DINO_WM: "DINO-WM (Zhou et al., 2024)",
}

SEVERAL_CAMERAS = frozenset({_DREAMER_V2, _DREAMER_V3, _DREAMER_V3N, _MUDREAMER})  # can be seen


@dataclass(frozen=True)
class PresetEntry:
    """One preset. module: of its family; its ``PRESETS`` hold a preset of that name. discrete: it
    is for discrete actions. action_free: it learns from images alone and does not act. pretraining:
    the action-free preset whose weights this one can begin with."""

    module: str
    summary: str
    discrete: bool = False
    action_free: bool = False
    pretraining: str = ""

    @property
    def paper(self) -> str:
        """The model's name and source; of a family that is not in `PAPERS`, its module."""
        return PAPERS.get(self.module, self.module)


ENTRIES: Mapping[str, PresetEntry] = {
    "mwm": PresetEntry(
        _MWM, "Masked World Models as published, Meta-World column (26M parameters)."
    ),
    "mwm_dmc": PresetEntry(
        _MWM, "The DeepMind Control column: batch 16 x 50, no reward normalisation."
    ),
    "mwm_rlbench": PresetEntry(
        _MWM, "The RLBench column: discount head, KL weight 0.1 with 1 nat free before scaling."
    ),
    "mwm_cpu": PresetEntry(
        _MWM, "Every mechanism of MWM at 1.2M parameters, for learning on one CPU core."
    ),
    "mwm_cpu_fine": PresetEntry(
        _MWM, "mwm_cpu for tasks with small marks: less masking, more imitation of demonstrations."
    ),
    "mwm_cpu_demos": PresetEntry(
        _MWM, "mwm_cpu_fine whose representation learns from demonstrations as well."
    ),
    "mwm_cpu_plan": PresetEntry(
        _MWM, "mwm_cpu_fine for planning (cem) with a dense reward of at most 1."
    ),
    "dreamer_v2": PresetEntry(
        _DREAMER_V2, "DreamerV2 as the baseline of MWM on Meta-World (33M parameters)."
    ),
    "dreamer_v2_large": PresetEntry(
        _DREAMER_V2, "DreamerV2 as the baseline of APV on Meta-World (31M parameters)."
    ),
    "dreamer_v2_dmc": PresetEntry(
        _DREAMER_V2, "DreamerV2 as published on DeepMind Control (17M parameters)."
    ),
    "dreamer_v2_atari": PresetEntry(
        _DREAMER_V2,
        "DreamerV2 as published on Atari: discrete actions, a discount head.",
        discrete=True,
    ),
    "dreamer_v2_cpu": PresetEntry(
        _DREAMER_V2, "Every mechanism of DreamerV2 at 2.0M parameters, for one CPU core."
    ),
    "apv": PresetEntry(
        _APV,
        "APV as published on Meta-World, fine-tuned after apv_pretrain (45M parameters).",
        pretraining="apv_pretrain",
    ),
    "apv_dmc": PresetEntry(
        _APV, "APV as published on DeepMind Control.", pretraining="apv_pretrain"
    ),
    "apv_pretrain": PresetEntry(
        _APV,
        "Pre-training of APV: a model of action-free videos (26M parameters).",
        action_free=True,
    ),
    "apv_cpu": PresetEntry(
        _APV,
        "Every mechanism of APV at 2.1M parameters, for one CPU core.",
        pretraining="apv_cpu_pretrain",
    ),
    "apv_cpu_pretrain": PresetEntry(
        _APV, "Pre-training of apv_cpu on action-free videos.", action_free=True
    ),
    "dreamer_v3": PresetEntry(
        _DREAMER_V3, "DreamerV3 of 2023, size S (18M parameters), DeepMind Control from images."
    ),
    "dreamer_v3_atari": PresetEntry(
        _DREAMER_V3,
        "The Atari 100k column of DreamerV3 (2023): discrete actions, more updates.",
        discrete=True,
    ),
    "dreamer_v3_cpu": PresetEntry(
        _DREAMER_V3, "Every mechanism of DreamerV3 (2023) at 2.7M parameters, for one CPU core."
    ),
    "dreamer_v3_cpu_discrete": PresetEntry(
        _DREAMER_V3, "dreamer_v3_cpu for discrete actions.", discrete=True
    ),
    "dreamer_v3_cpu_xs": PresetEntry(
        _DREAMER_V3, "dreamer_v3_cpu with 2.0M parameters and updates of a third of the time."
    ),
    "dreamer_v3n": PresetEntry(
        _DREAMER_V3N, "DreamerV3 of Nature 2025, size12m (10.5M parameters): block GRU, one loss."
    ),
    "dreamer_v3n_1m": PresetEntry(_DREAMER_V3N, "dreamer_v3n in size1m (0.69M parameters)."),
    "dreamer_v3n_12m": PresetEntry(_DREAMER_V3N, "The same as dreamer_v3n, by its size."),
    "dreamer_v3n_25m": PresetEntry(_DREAMER_V3N, "dreamer_v3n in size25m (23.5M parameters)."),
    "dreamer_v3n_50m": PresetEntry(_DREAMER_V3N, "dreamer_v3n in size50m (41.7M parameters)."),
    "dreamer_v3n_200m": PresetEntry(_DREAMER_V3N, "dreamer_v3n in size200m."),
    "dreamer_v3n_r2": PresetEntry(
        _DREAMER_V3N, "dreamer_v3n without a decoder: R2-Dreamer, ICLR 2026."
    ),
    "dreamer_v3n_cpu": PresetEntry(
        _DREAMER_V3N, "Every mechanism of dreamer_v3n small enough for learning on one CPU core."
    ),
    "mudreamer": PresetEntry(
        _MUDREAMER, "MuDreamer, without reconstruction (15M parameters), DeepMind Control."
    ),
    "mudreamer_backgrounds": PresetEntry(
        _MUDREAMER, "mudreamer for natural backgrounds: the reward weighs 100 times as much."
    ),
    "mudreamer_atari": PresetEntry(
        _MUDREAMER,
        "The Atari 100k column of MuDreamer: discrete actions, more updates.",
        discrete=True,
    ),
    "mudreamer_cpu": PresetEntry(
        _MUDREAMER, "Every mechanism of MuDreamer at 2.0M parameters, for one CPU core."
    ),
    "dino_wm": PresetEntry(
        _DINO_WM, "DINO-WM with our settings (20M parameters, DINOv2-S frozen)."
    ),
    "dino_wm_repo": PresetEntry(_DINO_WM, "DINO-WM as released (20M parameters, DINOv2-S frozen)."),
    "dino_wm_cpu": PresetEntry(
        _DINO_WM,
        "Every mechanism of DINO-WM small enough for one CPU core: 64 pixels, our own encoder.",
    ),
}
SUMMARIES: Mapping[str, str] = {name: entry.summary for name, entry in ENTRIES.items()}
# each preset that begins with weights learned from videos, and the action-free one that learns them
PRETRAINING: Mapping[str, str] = {
    name: entry.pretraining for name, entry in ENTRIES.items() if entry.pretraining
}


class Presets(MutableMapping[str, "Preset"]):
    """Presets by name, loaded when first used. One of your own is added as to any dictionary."""

    def __init__(self, entries: Mapping[str, PresetEntry]) -> None:
        self._entries = entries
        self._loaded: dict[str, Preset] = {}

    def __getitem__(self, name: str) -> Preset:
        if name not in self._loaded:
            module = import_module(self._entries[name].module)
            self._loaded[name] = next(p for p in module.PRESETS if p.name == name)
        return self._loaded[name]

    def __setitem__(self, name: str, preset: Preset) -> None:
        self._loaded[name] = preset

    def __delitem__(self, name: str) -> None:
        del self._loaded[name]

    def __iter__(self) -> Iterator[str]:
        return iter({**self._entries, **self._loaded})

    def __len__(self) -> int:
        return len(self._entries.keys() | self._loaded.keys())

    def __contains__(self, name: object) -> bool:  # without loading it
        return name in self._loaded or name in self._entries


PRESETS = Presets(ENTRIES)


def preset(name: str) -> Preset:
    """The preset of that name; a ModelError names the nearest one otherwise."""
    if name in PRESETS:
        return PRESETS[name]
    raise unknown_name("model", name, PRESETS)


def takes_discrete(name: str) -> bool:
    """Whether a preset is for discrete actions; otherwise it is for continuous ones."""
    entry = ENTRIES.get(name)
    return entry.discrete if entry is not None else preset(name).discrete


def is_action_free(name: str) -> bool:
    """Whether a preset learns from images alone, logs without actions included, and never acts; of
    a name that is no preset, False."""
    entry = ENTRIES.get(name)
    if entry is not None:
        return entry.action_free
    return name in PRESETS and PRESETS[name].action_free


def refusal_of_actions(name: str, *, discrete: bool) -> str:
    """Why a model cannot act on a robot with discrete actions, or with continuous ones, and which
    can; empty where it can."""
    if takes_discrete(name) == discrete:
        return ""
    able = (each for each in PRESETS if takes_discrete(each)) if discrete else ()
    return other_actions(name, discrete=discrete, able=able)


def takes_several_cameras(name: str) -> bool:
    """Whether a preset's model can see the images of several cameras together."""
    entry = ENTRIES.get(name)
    return entry.module in SEVERAL_CAMERAS if entry is not None else preset(name).several_cameras


def refusal_of_cameras(name: str, cameras: Sequence[str]) -> str:
    """Why a model cannot see these cameras together, and which can; empty where it can."""
    if len(cameras) < 2 or takes_several_cameras(name):
        return ""
    first = {entry.module: each for each, entry in reversed(list(ENTRIES.items()))}
    able = sorted(name for module, name in first.items() if module in SEVERAL_CAMERAS)
    return one_camera_only(name, cameras, able)
