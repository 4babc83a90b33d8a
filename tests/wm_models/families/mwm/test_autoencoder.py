"""The masked autoencoder: shapes, masking, losses at the start, and that it learns."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from wm_models.families.mwm.autoencoder import AutoencoderConfig, MaskedAutoencoder
from wm_models.nets.blocks import patchify
from wm_models.nets.distributions import symlog


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(count: int, size: int = 64, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 256, (count, size, size, 3), generator=seeded(seed), dtype=torch.uint8)


@pytest.fixture(scope="module")
def narrow() -> MaskedAutoencoder:
    """The published grid of 64 tokens, with narrow layers."""
    torch.manual_seed(0)
    return MaskedAutoencoder(
        AutoencoderConfig(
            channels=(4, 4, 8), width=16, encoder_layers=1, decoder_layers=1, decoder_width=16
        )
    ).requires_grad_(False)


def test_shapes_of_all_stages(narrow) -> None:
    visible, restore = narrow.masked_encode(images(2), seeded())
    assert visible.shape == (2, 17, 16) and restore.shape == (2, 64)
    patches, reward = narrow.decode(visible, restore)
    assert patches.shape == (2, 64, 192) and reward.shape == (2,)
    assert narrow.encode(images(2)).shape == (2, 65, 16) and narrow.tokens == 65
    assert narrow.decoder_position.shape == (66, 16)
    assert not narrow.decoder_position[0].any()


def test_masks_are_drawn_per_frame_and_undone(narrow) -> None:
    _, restore = narrow.masked_encode(images(2), seeded())
    visible = restore < 16  # at these positions of the grid
    assert visible.sum(1).tolist() == [16, 16]
    assert not visible[0].equal(visible[1])
    x = torch.arange(64).expand(2, 64)
    shuffle = restore.argsort(1)
    assert x.gather(1, shuffle).gather(1, restore).equal(x)


def test_no_masking_keeps_the_order() -> None:
    torch.manual_seed(0)
    config = AutoencoderConfig(32, "conv", (4, 4, 8), 16, 1, 16, 1, 2, mask_ratio=0.0)
    net = MaskedAutoencoder(config).requires_grad_(False)
    tokens, restore = net.masked_encode(images(2, 32), seeded())
    assert restore.equal(torch.arange(16).expand(2, 16))
    assert_close(tokens, net.encode(images(2, 32)))
    assert_close(net.decode(tokens, restore)[0], net.decode(tokens)[0])


def test_masked_patches_do_not_change_the_encoding(narrow) -> None:
    one = images(1)
    tokens, restore = narrow.masked_encode(one, seeded())
    masked = int((restore[0] >= 16).nonzero()[0])
    visible = int((restore[0] < 16).nonzero()[0])

    def encoded_with_change(token: int) -> torch.Tensor:
        other = one.clone()
        row, col = (
            token // 8 * 8 + 4,
            token % 8 * 8 + 4,
        )  # k4 s2 convolutions reach 7 pixels further
        other[:, row, col] = 255 - other[:, row, col]
        return narrow.masked_encode(other, seeded())[0]

    receptive = {(masked // 8 + r) * 8 + masked % 8 + c for r in (-1, 0, 1) for c in (-1, 0, 1)}
    if not any((restore[0] < 16)[t] for t in receptive if 0 <= t < 64):
        assert encoded_with_change(masked).equal(tokens)
    assert not encoded_with_change(visible).equal(tokens)


def test_uint8_and_float_images_are_encoded_equally(narrow) -> None:
    u8 = images(2)
    assert_close(narrow.encode(u8), narrow.encode(u8.permute(0, 3, 1, 2) / 255.0))


def test_an_image_of_another_size_is_refused_with_the_right_shape(narrow) -> None:
    with pytest.raises(ValueError, match=r"got \(1, 3, 32, 32\).*expected \(B, 64, 64, 3\)"):
        narrow.encode(images(1, 32))


def test_reward_token_shares_the_mask_tokens_weights(narrow) -> None:
    names = [name for name, _ in narrow.named_parameters() if "token" in name or "cls" in name]
    assert names == ["cls", "mask_token"]


def rows(image, reward, known=None):
    """Rows of a batch of transitions; all rewards are known by default."""
    known = torch.ones(len(reward)).bool() if known is None else known
    return {"image": image, "reward": reward, "reward_known": known}


@pytest.mark.parametrize("source", ["token", "last_patch"])
def test_where_the_reward_is_read(narrow, source: str) -> None:
    net = MaskedAutoencoder(replace(narrow.config, reward_from=source)).requires_grad_(False)
    decoded, tokens = torch.randn(2, 66, 16, generator=seeded()), torch.zeros(2, 65, 16)
    net.decoder.forward = lambda _: decoded
    patches, reward = net.decode(tokens)
    head_input = {"token": decoded[:, 65], "last_patch": patches[:, 63]}[source]
    assert_close(reward, net.to_reward(head_input)[:, 0])


def test_losses_at_the_start(paper) -> None:
    ae, batch = paper.autoencoder, images(8)
    _, metrics = ae.loss(rows(batch, torch.zeros(8)), seeded())
    power = float(patchify(ae.standardise(batch), 8).square().mean())
    # LayerNorm outputs of unit power through Glorot weights: 2 * 256 / (256 + 192) = 1.14 expected
    assert 0.8 < float(metrics["ae/pixel_loss"]) - power < 1.6
    _, reward = ae.decode(*ae.masked_encode(batch, seeded()))
    assert reward.std() < 0.2 and reward.abs().max() < 6


def test_unknown_rewards_do_not_count(narrow) -> None:
    known = torch.tensor([True, False, True])
    batch = images(3)

    def reward_loss(second: float) -> float:
        reward = torch.tensor([1.0, second, 2.0])
        return float(narrow.loss(rows(batch, reward, known), seeded())[1]["ae/reward_loss"])

    assert reward_loss(0.0) == reward_loss(1e3)
    without_rewards = narrow.loss(rows(batch, torch.ones(3), ~torch.ones(3).bool()), seeded())[1][
        "ae/reward_loss"
    ]
    assert float(without_rewards) == 0.0


def test_reward_target_is_symlog(narrow) -> None:
    batch = images(3)
    _, predicted = narrow.decode(*narrow.masked_encode(batch, seeded()))
    reward = torch.tensor([0.0, 5.0, 20.0])
    expected = (predicted - symlog(reward)).square().mean()
    assert_close(narrow.loss(rows(batch, reward), seeded())[1]["ae/reward_loss"], expected)


@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_reward_scale_weighs_the_reward_loss(narrow, scale: float) -> None:
    net = MaskedAutoencoder(replace(narrow.config, reward_scale=scale))
    net.load_state_dict(narrow.state_dict())
    total, metrics = net.loss(rows(images(3), torch.tensor([0.0, 0.3, 0.9])), seeded())
    assert_close(total, metrics["ae/pixel_loss"] + scale * metrics["ae/reward_loss"])


def test_only_demonstrated_actions_are_targets() -> None:
    torch.manual_seed(0)
    config = AutoencoderConfig(32, "conv", (8, 16, 16), 32, 1, 32, 1, 2, demonstrations=2.0)
    net, frames = MaskedAutoencoder(config, action_dim=2), images(3, 32)
    batch = rows(frames, torch.zeros(3)) | {"demo": torch.tensor([True, False, True])}

    def losses(action, **extra):
        total, metrics = net.loss({**batch, "next_action": torch.tensor(action), **extra}, seeded())
        other_losses = metrics["ae/pixel_loss"] + metrics["ae/reward_loss"]
        assert_close(total, other_losses + 2.0 * metrics["ae/demonstration_loss"])
        return float(metrics["ae/demonstration_loss"].detach())

    first = losses([[1.0, 0.0], [0.0, 0.0], [0.0, 1.0]])
    assert losses([[1.0, 0.0], [9.0, 9.0], [0.0, 1.0]]) == first
    assert losses([[1.0, 0.0], [0.0, 0.0], [0.0, -1.0]]) != first
    last = torch.tensor([False, False, True])  # a last row holds no action
    assert losses([[1.0, 0.0], [0.0, 0.0], [0.0, 1.0]], is_last=last) == losses(
        [[1.0, 0.0], [0.0, 0.0], [0.0, -1.0]], is_last=last
    )
    _, metrics = net.loss(rows(frames, torch.zeros(3)), seeded())
    assert "ae/demonstration_loss" not in metrics


def test_it_overfits_a_few_frames() -> None:
    """Simple images, a small net: the pixel loss falls below 0.1 and the reward is predicted."""
    torch.manual_seed(0)
    net = MaskedAutoencoder(AutoencoderConfig(32, "conv", (8, 16, 16), 32, 1, 32, 1, 2))
    g = seeded()
    coarse = torch.rand(4, 3, 2, 2, generator=g)
    frames = torch.nn.functional.interpolate(coarse, size=32, mode="bilinear")
    reward = 10 * torch.rand(4, generator=g)
    adam = torch.optim.Adam(net.parameters(), 5e-3)
    for _ in range(250):
        loss, metrics = net.loss(rows(frames, reward), g)
        adam.zero_grad()
        loss.backward()
        adam.step()
    assert metrics["ae/pixel_loss"].item() < 0.1
    assert metrics["ae/reward_loss"].item() < 0.5 * symlog(reward).var().item()


@pytest.mark.parametrize(
    ("field", "value"),
    [("image_size", 60), ("mask_ratio", 1.0), ("stem", "convs"), ("reward_from", "pixels")],
)
def test_settings_are_checked(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=field):
        AutoencoderConfig(**{field: value})
