"""Visual encoders by the kind of their configuration."""

from __future__ import annotations

from wm_models.encoders.conv import ConvConfig
from wm_models.encoders.timm import TimmConfig

EncoderConfig = TimmConfig | ConvConfig
