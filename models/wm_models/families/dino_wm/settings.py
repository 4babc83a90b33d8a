"""Settings in which a DINO-WM may differ from its preset, as a manifest holds them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from wm_models.encoders.pretrained import entry
from wm_models.encoders.timm import TimmConfig
from wm_models.errors import ModelError
from wm_models.families.dino_wm.model import DinoConfig

# Smallest and largest value of whole numbers: a manifest may come from anywhere.
NUMBERS: Mapping[str, tuple[int, int]] = {
    "num_hist": (1, 32),
    "frameskip": (1, 100),
    "concat_dim": (0, 1),
    "image_size": (32, 896),
    "proprio_width": (1, 1024),
    "proprio_repeat": (1, 64),
    "action_width": (1, 1024),
    "action_repeat": (1, 64),
    "depth": (1, 48),
    "heads": (1, 64),
    "head_width": (1, 256),
    "hidden": (1, 16384),
}
WORDS: Mapping[str, str] = {"encoder": "a name of the zoo", "tokens": "'patch' or 'cls'"}
SWITCHES = ("decoder",)  # false: without one


def configured(config: DinoConfig, settings: Mapping[str, Any]) -> DinoConfig:
    """``config`` with some settings changed.

    "encoder", "tokens" and "image_size" need a frozen encoder of the zoo; a ViT's input side is
    image_size // 16 patches, as DINO-WM's authors have it, a convolutional network's is image_size.
    ModelError: an unknown setting, or a value of a wrong type or out of range.
    """
    for name, value in settings.items():
        _check(name, value)
    encoder = config.encoder
    if settings.keys() & {"encoder", "tokens", "image_size"}:
        encoder = _encoder(encoder, settings)
    tokens = config.tokens
    proprio = _renamed(settings, {"width": "proprio_width", "repeat": "proprio_repeat"})
    action = _renamed(settings, {"width": "action_width", "repeat": "action_repeat"})
    concat = _renamed(settings, {"concat_dim": "concat_dim"})
    tokens = replace(
        tokens,
        proprio=replace(tokens.proprio, **proprio),
        action=replace(tokens.action, **action),
        **concat,
    )
    shape = {name: name for name in ("depth", "heads", "head_width", "hidden")}
    frames = {name: name for name in ("num_hist", "frameskip")}
    return replace(
        config,
        encoder=encoder,
        tokens=tokens,
        predictor=replace(config.predictor, **_renamed(settings, shape)),
        decoder=config.decoder if settings.get("decoder", True) else None,
        **_renamed(settings, frames),
    )


def _encoder(encoder: object, settings: Mapping[str, Any]) -> TimmConfig:
    if not isinstance(encoder, TimmConfig):
        raise ModelError("settings: encoder, tokens and image_size need a preset with DINOv2.")
    name = settings.get("encoder", encoder.name)
    size = settings.get("image_size", encoder.image_size)
    known = entry(name)
    return replace(
        encoder,
        name=name,
        tokens=settings.get("tokens", encoder.tokens),
        image_size=size,
        input_size=size // 16 * known.patch if known.resizes else size,
    )


def _renamed(settings: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    return {ours: settings[theirs] for ours, theirs in names.items() if theirs in settings}


def _check(name: str, value: object) -> None:
    if name in NUMBERS:
        low, high = NUMBERS[name]
        if type(value) is not int or not low <= value <= high:
            raise ModelError(f"settings.{name}: got {value!r}, expected {low} to {high}.")
    elif name in WORDS:
        if type(value) is not str:
            raise ModelError(f"settings.{name}: got {value!r}, expected {WORDS[name]}.")
    elif name in SWITCHES:
        if type(value) is not bool:
            raise ModelError(f"settings.{name}: got {value!r}, expected true or false.")
    else:
        known = ", ".join((*NUMBERS, *WORDS, *SWITCHES))
        raise ModelError(f"settings: there is no {name!r}. There are: {known}.")
