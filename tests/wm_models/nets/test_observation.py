"""Observations of images, proprioception or both, to numbers and back."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from wm_models.errors import ModelError
from wm_models.interface.embodiment import Embodiment
from wm_models.nets.cnn import CNNConfig
from wm_models.nets.distributions import symlog
from wm_models.nets.heads import HeadConfig
from wm_models.nets.observation import ObservationConfig, ObservationDecoder, ObservationEncoder
from wm_models.nets.pooled_cnn import PooledCNNConfig

ARM = Embodiment((-1.0,), (1.0,), (0.0,), (1.0,), (1.0, -2.0, 0.0), (2.0, 0.5, 1.0))
TWO_EYES = replace(ARM, cameras=("front", "wrist"))
FRONT, WRIST = TWO_EYES.image_keys
CNNS = {
    "strided": CNNConfig(depth=2),
    "same": CNNConfig(depth=2, padding="same", norm="layer"),
    "pooled": PooledCNNConfig(depth=2, mults=(2, 4, 4), units=8, blocks=1),
}


def config(inputs: str) -> ObservationConfig:
    return ObservationConfig(inputs, CNNConfig(depth=2), HeadConfig(units=6, layers=2))


def observation(*lead: int) -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    return {
        "image": torch.randint(0, 256, (*lead, 64, 64, 3), generator=g, dtype=torch.uint8),
        "proprio": torch.randn(*lead, 3, generator=g),
    }


@pytest.mark.parametrize("inputs", ["image", "proprio", "both"])
def test_a_model_uses_its_inputs_alone(inputs: str) -> None:
    torch.manual_seed(0)
    encoder, obs = ObservationEncoder(config(inputs), ARM), observation(2)
    features = encoder(obs)
    assert features.shape == (2, 1, config(inputs).width)
    for name, used in {"image": inputs != "proprio", "proprio": inputs != "image"}.items():
        assert (name in config(inputs).obs_keys(ARM)) == used
        other = {**obs, name: obs[name].flip(0)}
        assert encoder(other).equal(features) != used


@pytest.mark.parametrize("inputs", ["image", "proprio", "both"])
def test_losses_are_sums_over_an_observation_and_means_over_steps(inputs: str) -> None:
    torch.manual_seed(0)
    decoder = ObservationDecoder(config(inputs), ARM, 5, 3)
    for p in decoder.parameters():
        torch.nn.init.zeros_(p)
    batch = observation(2, 3)
    losses = decoder.losses(torch.randn(2, 3, 5), batch)
    if inputs != "proprio":
        error = (batch["image"] / 255.0 - 0.5).square().sum((2, 3, 4)).mean()
        assert_close(losses["wm/image_loss"], error)
        assert_close(decoder.images(torch.zeros(1, 5)), {"image": torch.full((1, 3, 64, 64), 0.5)})
    else:
        with pytest.raises(ModelError, match="sees no images"):
            decoder.images(torch.zeros(1, 5))
    if inputs != "image":
        scores = (batch["proprio"] - torch.tensor([1.0, -2.0, 0.0])) / torch.tensor([2.0, 0.5, 1.0])
        assert_close(losses["wm/proprio_loss"], symlog(scores).square().sum(-1).mean())
    assert len(losses) == 1 + (inputs == "both")


def test_what_is_missing_is_named() -> None:
    with pytest.raises(ModelError, match="inputs: got 'both', expected 'image'"):
        config("both").obs_keys(Embodiment.unit(2))
    with pytest.raises(ModelError, match="got only image, expected proprioception"):
        ObservationEncoder(config("both"), ARM)({"image": observation(2)["image"]})
    with pytest.raises(ModelError, match="inputs"):
        ObservationConfig("sound")


def two_images(*lead: int) -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(1)
    shape = (*lead, 64, 64, 3)
    return {k: torch.randint(0, 256, shape, generator=g, dtype=torch.uint8) for k in (FRONT, WRIST)}


@pytest.mark.parametrize("kind", CNNS)
def test_every_camera_s_pixels_reach_the_features_and_get_gradients(kind: str) -> None:
    torch.manual_seed(0)
    encoder = ObservationEncoder(ObservationConfig(cnn=CNNS[kind]), TWO_EYES)
    obs = {k: v.permute(0, 3, 1, 2) / 255.0 for k, v in two_images(2).items()}
    features = encoder(obs)
    assert features.shape == (2, 1, CNNS[kind].width)
    for key in obs:
        assert not encoder({**obs, key: obs[key].flip(0)}).equal(features)
    assert not encoder({FRONT: obs[WRIST], WRIST: obs[FRONT]}).equal(features)
    for image in obs.values():
        image.requires_grad_()
    encoder(obs).square().sum().backward()
    for image in obs.values():
        assert image.grad is not None and image.grad.abs().amax((1, 2, 3)).gt(0).all()


def test_bytes_and_shares_of_several_cameras_give_the_same_features() -> None:
    encoder, raw = ObservationEncoder(config("image"), TWO_EYES), two_images(2)
    shares = {key: image.permute(0, 3, 1, 2) / 255.0 for key, image in raw.items()}
    assert_close(encoder(raw), encoder(shares))


@pytest.mark.parametrize("kind", CNNS)
def test_the_loss_is_the_sum_over_cameras_each_decoded_to_its_own_name(kind: str) -> None:
    torch.manual_seed(0)
    decoder = ObservationDecoder(ObservationConfig(cnn=CNNS[kind]), TWO_EYES, 8, 4)
    batch, feat = two_images(2, 3), torch.randn(2, 3, 8)
    images = decoder.images(feat)
    assert {k: v.shape for k, v in images.items()} == dict.fromkeys(
        (FRONT, WRIST), (2, 3, 3, 64, 64)
    )
    assert not images[FRONT].equal(images[WRIST])
    raw = decoder.cnn(feat).split(3, -3)
    each = [
        (batch[key].movedim(-1, -3) / 255.0 - 0.5 - image).square().sum((-3, -2, -1)).mean()
        for key, image in zip(batch, raw, strict=True)
    ]
    losses = decoder.losses(feat, batch)
    assert_close(losses, {"wm/image_loss": sum(each)}, rtol=1e-4, atol=1e-2)


def test_a_missing_camera_and_images_of_two_sizes_are_refused_by_name() -> None:
    encoder, images = ObservationEncoder(config("image"), TWO_EYES), two_images(2)
    with pytest.raises(ModelError, match="image/wrist: got only image/front, expected an image"):
        encoder({FRONT: images[FRONT]})
    small = {**images, WRIST: images[WRIST][:, :32, :32]}
    with pytest.raises(ModelError, match=r"image/wrist \(2, 32, 32, 3\).*expected one size"):
        encoder(small)


def test_the_keys_of_one_camera_keep_their_name() -> None:
    assert config("both").obs_keys(ARM) == {"image": (3, 64, 64), "proprio": (3,)}
    assert list(config("both").obs_keys(TWO_EYES)) == [FRONT, WRIST, "proprio"]
    assert "image/front" not in config("proprio").obs_keys(TWO_EYES)
