"""Checkpoints of DINO-WM's own code (github.com/gaoyuezhou/dino_wm) as versions of our weights.

A run's folder there holds hydra.yaml, the whole configuration, and checkpoints/model_<epoch>.pth:
pickled modules of predictor, decoder, action and proprioception encoder, and their optimisers. The
encoder is only in it where it was trained. Statistics of the data are not in it at all: they are
given as an :class:`Embodiment`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from torch import Tensor, nn

from wm_models.encoders.pretrained import fill_backbone
from wm_models.encoders.timm import TimmEncoder
from wm_models.families.dino_wm.model import DinoWorldModel
from wm_models.interface.embodiment import Embodiment
from wm_models.nets.state_dicts import first_not_finite, misfit
from wm_models.registry import preset
from wm_models.weights.manifest import Manifest, WeightsError
from wm_models.weights.store import WeightStore
from wm_models.weights.torch_pickle import Bag, StoredTensor, TorchFile

PRESET = "dino_wm_repo"
MOST_BYTES = 1 << 20  # of hydra.yaml
ENCODERS = {  # feature_key of models.dino.DinoV2Encoder -> our tokens
    "x_norm_patchtokens": "patch",
    "x_norm_clstoken": "cls",
}
NAMES = {  # torch.hub -> the zoo
    "dinov2_vits14": "dinov2_s",
    "dinov2_vits14_reg": "dinov2_s_reg",
    "dinov2_vitb14": "dinov2_b",
}
EMBEDDING = "models.proprio.ProprioceptiveEmbedding"
PREDICTOR = "models.vit.ViTPredictor"
DECODER = "models.vqvae.VQVAE"
# Names in their modules -> ours.
_PREDICTOR = (
    (r"pos_embedding", "position"),
    (r"transformer\.norm\.(.+)", r"norm.\1"),
    (r"transformer\.layers\.(\d+)\.0\.norm\.(.+)", r"blocks.\1.norm.\2"),
    (r"transformer\.layers\.(\d+)\.0\.to_qkv\.(.+)", r"blocks.\1.qkv.\2"),
    (r"transformer\.layers\.(\d+)\.0\.to_out\.(.+)", r"blocks.\1.out.\2"),
    (r"transformer\.layers\.(\d+)\.1\.net\.(.+)", r"blocks.\1.mlp.\2"),
)
_DECODER = (
    (r"upsample_b\.blocks\.(\d+)\.conv\.(.+)", r"net.0.\1.net.\2"),
    (r"dec\.blocks\.(\d+)\.conv\.(.+)", r"net.1.\1.net.\2"),
    (r"upsample_b\.blocks\.(.+)", r"net.0.\1"),
    (r"dec\.blocks\.(.+)", r"net.1.\1"),
)


@dataclass(frozen=True)
class ReleasedRun:
    """Settings of a run, from its hydra.yaml."""

    folder: Path
    settings: Mapping[str, Any]  # of our preset, where it differs
    environment: str  # name of the task there: point_maze, pusht, wall, deformable_env
    data: Mapping[str, Any]  # env.dataset: data_path, n_rollout, normalize_action, ...
    notes: tuple[str, ...]  # what is not taken over

    @classmethod
    def read(cls, folder: Path) -> ReleasedRun:
        """WeightsError: no hydra.yaml, or what in it this package has no counterpart of."""
        path = folder / "hydra.yaml"
        if not path.is_file():
            raise WeightsError(
                f"weights: {folder} has no hydra.yaml. Right: a run's folder of DINO-WM's code, "
                "with hydra.yaml and checkpoints/model_latest.pth."
            )
        with path.open("rb") as stream:
            text = stream.read(MOST_BYTES + 1)
        try:
            if len(text) > MOST_BYTES:
                raise ValueError(f"longer than {MOST_BYTES} bytes")
            table = yaml.safe_load(text)
        except (yaml.YAMLError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise WeightsError(f"weights: {path} cannot be read as YAML ({reason}).") from None
        config = _Config(path, table)
        return cls(
            folder,
            _settings(config),
            str(config.get("env.name", "")),
            config.branch("env.dataset"),
            tuple(_notes(config)),
        )

    def checkpoint(self, epoch: str = "latest") -> Path:
        """The file of an epoch ("latest", or a number). WeightsError names those that are there."""
        for folder in (self.folder / "checkpoints", self.folder):
            if (folder / f"model_{epoch}.pth").is_file():
                return folder / f"model_{epoch}.pth"
        there = sorted(p.name for p in self.folder.glob("**/model_*.pth"))
        raise WeightsError(
            f"weights: {self.folder} has no checkpoints/model_{epoch}.pth. There are: "
            f"{', '.join(there) or 'none'}."
        )


def import_released(
    run: ReleasedRun,
    embodiment: Embodiment,
    out: Path,
    *,
    epoch: str = "latest",
    encoder: Path | None = None,
    extra: Mapping[str, Any] | None = None,
) -> Manifest:
    """Write the weights of a released run as one version into the store ``out``.

    ``embodiment`` holds the statistics of its data. The frozen encoder's weights come from the file
    ``encoder``, or are looked for on this computer (see ``dino_wm.zoo``), unless the checkpoint has
    them. WeightsError and ModelError, in one line, name what does not fit.
    """
    file = run.checkpoint(epoch)
    model = preset(PRESET).varied(run.settings).build(embodiment)
    assert isinstance(model, DinoWorldModel)
    with TorchFile(file) as opened:
        parts = _Parts(opened)
        parts.load("predictor", model.dynamics.predictor, PREDICTOR, _PREDICTOR)
        parts.load("action_encoder", model.dynamics.action, EMBEDDING)
        assert model.encoder.proprio is not None
        parts.load("proprio_encoder", model.encoder.proprio.linear, EMBEDDING)
        if model.decoder is not None:
            parts.load("decoder", model.decoder, DECODER, _DECODER, leave="quantize_b.")
        facts = _load_encoder(model.encoder.picture, parts, encoder)
        step = parts.content.get("epoch")
    return WeightStore(out).save(
        model.modules_by_name(),
        Manifest(
            version=1,
            preset=PRESET,
            action_dim=embodiment.action_dim,
            body=embodiment.to_json(),
            settings=dict(run.settings),
            source_log=Path(str(run.data.get("data_path", ""))).name,
            extra={
                "task": run.environment,
                "robot": run.environment,
                "encoder": facts,
                "imported": {
                    "code": "dino_wm",
                    "file": file.name,
                    "epoch": step if isinstance(step, int) else None,
                },
                **(extra or {}),
            },
        ),
    )


def _load_encoder(encoder: nn.Module, parts: _Parts, file: Path | None) -> dict[str, Any]:
    assert isinstance(encoder, TimmEncoder)
    if "encoder" not in parts.content:
        return encoder.pretrain(file)
    state = parts.tensors("encoder", encoder.config.name)
    fill_backbone(encoder.config.name, encoder.backbone, state, f"{parts.path}: encoder")
    return {"name": encoder.config.name, "init": "trained", "file": parts.path.name}


class _Parts:
    """The modules in a checkpoint, loaded into ours one by one."""

    def __init__(self, opened: TorchFile) -> None:
        self._opened, self.path = opened, opened.path
        if not isinstance(opened.content, dict):
            kind = getattr(opened.content, "kind", type(opened.content).__name__)
            raise WeightsError(
                f"weights: {self.path}: got a {kind}, expected a dict of predictor, decoder, "
                "action_encoder, proprio_encoder and epoch."
            )
        self.content: Mapping[str, Any] = opened.content

    def load(
        self,
        name: str,
        module: nn.Module,
        kind: str,
        names: tuple[tuple[str, str], ...] = (),
        leave: str = "\n",
    ) -> None:
        """Load the part ``name``, an object of class ``kind``, but for keys that begin with
        ``leave``."""
        state = self.tensors(name, kind)
        if kind == EMBEDDING:
            state = {k.removeprefix("patch_embed."): _linear(v) for k, v in state.items()}
        else:
            kept = {k: v for k, v in state.items() if not k.startswith(leave)}
            state = {_renamed(k, names): v for k, v in kept.items()}
        if wrong := misfit(module.state_dict(), state):
            raise WeightsError(
                f"weights: {self.path}: {name} ({kind}) does not fit hydra.yaml and the statistics "
                f"of the data: {wrong}."
            )
        if (key := first_not_finite(state)) is not None:
            raise WeightsError(f"weights: {self.path}: {key!r} of {name} holds NaN or infinity.")
        module.load_state_dict(state)

    def tensors(self, name: str, kind: str) -> dict[str, Tensor]:
        """The state of a part: of an object of class ``kind``, or a state dict as it is."""
        part = self.content.get(name)
        if isinstance(part, Bag):
            if "." in kind and part.kind != kind:
                raise WeightsError(
                    f"weights: {self.path}: {name}: got a {part.kind}, expected {kind}."
                )
            return self._opened.tensors(part.state_dict())
        if isinstance(part, dict):
            return self._opened.tensors(
                {str(k): v for k, v in part.items() if isinstance(v, StoredTensor)}
            )
        got = "nothing" if part is None else f"a {type(part).__name__}"
        raise WeightsError(f"weights: {self.path}: {name}: got {got}, expected a module.")


def _linear(weight: Tensor) -> Tensor:
    """A convolution over time of kernel 1 as the matrix that it is."""
    return weight.squeeze(-1) if weight.ndim == 3 else weight


def _renamed(key: str, names: tuple[tuple[str, str], ...]) -> str:
    for theirs, ours in names:
        if match := re.fullmatch(theirs, key):
            return match.expand(ours)
    return key


class _Config:
    """hydra.yaml by dotted paths."""

    def __init__(self, path: Path, table: object) -> None:
        self._path, self._table = path, table
        if not isinstance(table, dict):
            raise WeightsError(f"weights: {path}: got a {type(table).__name__}, expected a table.")

    def get(self, name: str, default: Any = None) -> Any:
        value: Any = self._table
        for part in name.split("."):
            if not isinstance(value, dict) or part not in value:
                return default
            value = value[part]
        return value

    def branch(self, name: str) -> dict[str, Any]:
        value = self.get(name)
        return {str(k): v for k, v in value.items()} if isinstance(value, dict) else {}

    def whole(self, name: str) -> int:
        value = self.get(name)
        if type(value) is not int:
            raise self.wrong(name, "a whole number")
        return value

    def only(self, name: str, right: Any, default: Any = None) -> None:
        """Refuse another value than the one that there is a counterpart of."""
        if self.get(name, default) != right:
            raise self.wrong(name, repr(right))

    def wrong(self, name: str, right: str) -> WeightsError:
        return WeightsError(
            f"weights: {self._path}: {name}: got {self.get(name)!r}, which this package does not "
            f"have, expected {right}."
        )


def _settings(config: _Config) -> dict[str, Any]:
    """Settings of our preset; only those that differ from it."""
    config.only("model._target_", "models.visual_world_model.VWorldModel")
    config.only("num_pred", 1)
    config.only("has_predictor", True)
    config.only("predictor._target_", PREDICTOR)
    for part in ("action_encoder", "proprio_encoder"):
        config.only(f"{part}._target_", EMBEDDING)
        config.only(f"{part}.tubelet_size", 1, 1)
    size = config.whole("img_size")
    released = {
        "num_hist": config.whole("num_hist"),
        "frameskip": config.whole("frameskip"),
        "concat_dim": config.whole("concat_dim"),
        "image_size": size,
        "proprio_width": config.whole("proprio_emb_dim"),
        "proprio_repeat": config.whole("num_proprio_repeat"),
        "action_width": config.whole("action_emb_dim"),
        "action_repeat": config.whole("num_action_repeat"),
        "depth": config.whole("predictor.depth"),
        "heads": config.whole("predictor.heads"),
        "hidden": config.whole("predictor.mlp_dim"),
        **_encoder(config),
        "decoder": _decodes(config),
    }
    if config.get("predictor.dim_head") is not None:
        released["head_width"] = config.whole("predictor.dim_head")
    ours = {
        "num_hist": 3, "frameskip": 5, "concat_dim": 1, "image_size": 224, "proprio_width": 10,
        "proprio_repeat": 1, "action_width": 10, "action_repeat": 1, "depth": 6, "heads": 16,
        "head_width": 64, "hidden": 2048, "encoder": "dinov2_s", "tokens": "patch", "decoder": True,
    }  # fmt: skip
    return {name: value for name, value in released.items() if value != ours[name]}


def _encoder(config: _Config) -> dict[str, Any]:
    target = config.get("encoder._target_")
    if target == "models.dino.DinoV2Encoder":
        name, key = config.get("encoder.name"), config.get("encoder.feature_key")
        if name not in NAMES:
            raise config.wrong("encoder.name", " or ".join(NAMES))
        if key not in ENCODERS:
            raise config.wrong("encoder.feature_key", " or ".join(ENCODERS))
        return {"encoder": NAMES[name], "tokens": ENCODERS[key]}
    if target == "models.encoder.resnet.resnet18":
        config.only("encoder.unit_norm", False, False)
        return {"encoder": "resnet18", "tokens": "cls"}
    raise config.wrong(
        "encoder._target_", "models.dino.DinoV2Encoder or models.encoder.resnet.resnet18"
    )


def _decodes(config: _Config) -> bool:
    """Whether there is a decoder that we have: the one of patches, not quantised."""
    if not config.get("has_decoder") or config.get("decoder._target_") != DECODER:
        return False
    config.only("decoder.quantize", False)
    for name, ours in (("channel", 384), ("n_res_block", 4), ("n_res_channel", 128)):
        config.only(f"decoder.{name}", ours)
    return True


def _notes(config: _Config) -> list[str]:
    if config.get("has_decoder") and not _decodes(config):
        return [
            f"decoder: {config.get('decoder._target_')} is left out; nothing that plans needs it"
        ]
    return []
