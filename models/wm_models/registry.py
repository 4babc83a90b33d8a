"""Model presets by name: the module of each, and a summary. The only such list.

Standard library only: graphs and commands read it without importing torch. A family is imported
when one of its presets is asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

from wm_models.errors import continuous_only, unknown_name

if TYPE_CHECKING:
    from wm_models.interface.preset import Preset

_MWM = "wm_models.families.mwm.presets"
_DINO_WM = "wm_models.families.dino_wm.presets"


@dataclass(frozen=True)
class PresetEntry:
    """One preset. module: of its family; its ``PRESETS`` hold a preset of that name."""

    module: str
    summary: str


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


def refusal_of_discrete(name: str) -> str:
    """Why a model cannot act with discrete actions, with those that can; empty where it can.

    This may load every family.
    """
    if preset(name).discrete:
        return ""
    return continuous_only(name, (each for each in PRESETS if PRESETS[each].discrete))
