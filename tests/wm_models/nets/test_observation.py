"""Observations of images, proprioception or both, to numbers and back."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from wm_models.errors import ModelError
from wm_models.interface.embodiment import Embodiment
from wm_models.nets.cnn import CNNConfig
from wm_models.nets.distributions import symlog
from wm_models.nets.heads import HeadConfig
from wm_models.nets.observation import ObservationConfig, ObservationDecoder, ObservationEncoder

ARM = Embodiment((-1.0,), (1.0,), (0.0,), (1.0,), (1.0, -2.0, 0.0), (2.0, 0.5, 1.0))


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
        assert_close(decoder.image(torch.zeros(1, 5)), torch.full((1, 3, 64, 64), 0.5))
    else:
        with pytest.raises(ModelError, match="sees no images"):
            decoder.image(torch.zeros(1, 5))
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
