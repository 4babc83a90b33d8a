"""The world model on frozen tokens: figures at the start, gradients, ablations, open loop."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from wm_models.errors import ModelError
from wm_models.families.mwm.model import TokenViTConfig, cls_first, cls_last
from wm_models.interface.learner import arrival


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def tokens_of(model, batch) -> torch.Tensor:
    image = batch["image"]
    with torch.no_grad():
        return model.autoencoder.encode(image.flatten(0, 1)).unflatten(0, image.shape[:2])


def test_feature_loss_at_the_start(paper, rows) -> None:
    """Summed over 256 features, averaged over tokens: LayerNorm targets of unit variance give 256,
    the Glorot output another 2 * 128 / 384 of it: 427; of eight seeds, 396 to 493."""
    batch = arrival(rows(2, 3, 64))
    batch["action"] = torch.zeros(2, 3, 4)
    tokens = tokens_of(paper, batch)
    assert tokens.shape == (2, 3, 65, 256)
    _, _, metrics = paper.dynamics.loss(tokens, batch, seeded())
    assert 380 < float(metrics["wm/feature_loss"]) < 510
    assert_close(tokens.square().sum(-1).mean(), torch.tensor(256.0), atol=1.0, rtol=0)


def test_cls_moves_to_the_end_and_back() -> None:
    tokens = torch.arange(10.0).reshape(1, 5, 2)
    assert cls_last(tokens)[0, :, 0].tolist() == [2, 4, 6, 8, 0]
    assert cls_first(cls_last(tokens)).equal(tokens)


def test_token_decoder_keeps_the_order_of_its_targets(model) -> None:
    """Position i of the output depends on position i of the position table, CLS on the corner."""
    decoder = model.dynamics.decoder
    feat = torch.randn(1, model.config.rssm.feat)
    for block in list(decoder.vit)[:-1]:
        with torch.no_grad():  # without attention tokens do not mix
            block.attn.proj.weight.zero_()
            block.attn.proj.bias.zero_()
    before = decoder(feat)
    with torch.no_grad():
        decoder.position[-1] += 1.0
    moved = (decoder(feat) - before).abs().sum(-1)[0] > 1e-6
    assert moved.tolist() == [True] + [False] * (len(moved) - 1)


def test_embedding_is_the_mean_over_all_tokens(model) -> None:
    encoder, tokens = model.dynamics.encoder, torch.randn(2, 3, 17, 16)
    flat = encoder.vit(encoder.proj(cls_last(tokens.flatten(0, 1))) + encoder.position)
    assert_close(encoder(tokens), flat.mean(1).reshape(2, 3, -1))


def test_kl_is_clipped_per_step_after_mixing_and_scaling(changed, rows) -> None:
    batch = arrival(rows(2, 5))

    def kl_loss(**kl: float) -> tuple[float, float, float]:
        model = changed(kl=kl).build(3, seed=1)
        model.zero_grad()
        _, _, metrics = model.dynamics.loss(tokens_of(model, batch), batch, seeded())
        metrics["wm/kl_loss"].backward()
        grad = model.dynamics.rssm.prior[0].weight.grad.abs().sum()
        return float(metrics["wm/kl_loss"].detach()), float(metrics["wm/kl"].detach()), float(grad)

    loss, kl, grad = kl_loss(scale=0.5, free=0.0)
    assert_close(loss, 0.5 * kl)
    assert grad > 0
    assert kl_loss(free=50.0)[0] == 50.0 and kl_loss(free=50.0)[2] == 0.0  # free bits
    assert kl_loss(free=0.0, clip=1e-6)[2] == 0.0  # and no gradient above the clip
    loss_b, _, grad_b = kl_loss(scale=0.25, free=0.0)
    assert_close((loss_b, grad_b), (0.5 * loss, 0.5 * grad), rtol=1e-4, atol=1e-6)


def test_reward_scale_weighs_the_reward_loss(changed, rows) -> None:
    batch, totals, reward = arrival(rows(2, 5)), [], torch.zeros(())
    for scale in (1.0, 100.0):
        model = changed(model={"reward_scale": scale}).build(3, seed=1)
        total, _, metrics = model.dynamics.loss(tokens_of(model, batch), batch, seeded())
        totals.append(total)
        reward = metrics["wm/reward_loss"]
    assert reward > 0
    assert_close(totals[1] - totals[0], 99.0 * reward, rtol=1e-4, atol=1e-4)


def test_gradients_stop_at_the_autoencoder(model, rows) -> None:
    batch = arrival(rows(2, 5))
    tokens = model.autoencoder.encode(batch["image"].flatten(0, 1)).unflatten(0, (2, 5)).detach()
    loss, _, _ = model.dynamics.loss(tokens, batch, seeded())
    loss.backward()
    assert all(p.grad is None for p in model.autoencoder.parameters())
    assert all(p.grad is None for p in (*model.actor.parameters(), *model.critic.parameters()))
    assert all(p.grad is not None for p in model.dynamics.parameters())


@pytest.mark.parametrize("term", ["wm/feature_loss", "wm/reward_loss", "wm/kl_loss"])
def test_every_term_reaches_the_recurrent_state(model, rows, term: str) -> None:
    batch = arrival(rows(2, 5))
    _, _, metrics = model.dynamics.loss(tokens_of(model, batch), batch, seeded())
    metrics[term].backward()
    assert model.dynamics.rssm.gru.weight.grad.abs().sum() > 0


def test_only_demonstrated_actions_train_the_posterior(changed, rows) -> None:
    model = changed(model={"demonstrations": 1.0}).build(3, seed=1)
    batch = arrival(rows(2, 5))
    tokens = tokens_of(model, batch)
    batch["demo"] = torch.zeros(2, 5).bool()
    batch["demo"][:, 2] = True

    def loss() -> torch.Tensor:
        return model.dynamics.loss(tokens, batch, seeded())[2]["wm/demonstration_loss"]

    first = loss()
    first.backward()
    assert model.dynamics.encoder.proj.weight.grad.abs().sum() > 0
    batch["next_action"] = batch["next_action"].clone()
    batch["next_action"][:, [0, 1, 3, 4]] += 0.3
    assert loss().equal(first)
    batch["next_action"][:, 2] += 0.3
    assert not loss().equal(first)


def test_rewards_that_are_unknown_do_not_count(model, rows) -> None:
    batch = arrival(rows(2, 5))
    tokens = tokens_of(model, batch)

    def reward_loss() -> float:
        return float(model.dynamics.loss(tokens, batch, seeded())[2]["wm/reward_loss"].detach())

    before = reward_loss()
    batch["reward"][:, 0] = 100.0  # where the window starts inside an episode
    assert reward_loss() == before
    batch["reward"][:, 1] = 100.0
    assert reward_loss() != before


def test_stepwise_observe_equals_the_training_pass(model, rows) -> None:
    """The step-by-step filter of the nodes equals the learner's pass over the window."""
    batch = arrival({k: v[:1] for k, v in rows(1, 6).items()})
    tokens = tokens_of(model, batch)
    start = model.dynamics.rssm.initial(1, tokens)
    with torch.no_grad():
        states, _ = model.dynamics.rssm.observe(
            start, batch["action"], model.dynamics.encoder(tokens), batch["is_first"], seeded()
        )
        state, generator = model.initial(1), seeded()
        for t in range(6):
            obs = {"image": batch["image"][:, t]}
            first = batch["is_first"][:, t]
            state = model.observe(state, batch["action"][:, t], obs, first, generator=generator)
            assert_close(state.feat, states.feat[:, t], rtol=1e-4, atol=1e-5)


def test_value_and_reward_count_every_reward_once(model) -> None:
    """The critic's V includes the reward of the current state; the contract's value does not."""
    state = model.step(model.initial(4), torch.rand(4, 3), generator=seeded())
    with torch.no_grad():
        model.critic.scale.fill_(2.0)
        out = model.readout(state, frozenset({"reward", "value"}))
        v = model.critic.predict(state.feat)
    assert_close(out["reward"] + model.config.gamma * out["value"], v)


def test_open_loop_images(model, rows) -> None:
    batch = arrival(rows(2, 3))
    state = model.initial(2)
    with torch.no_grad():
        for t in range(3):
            obs = {"image": batch["image"][:, t]}
            state = model.observe(
                state, batch["action"][:, t], obs, batch["is_first"][:, t], generator=seeded(t)
            )
        frames = []
        for t in range(4):
            state = model.step(state, torch.zeros(2, 3), generator=seeded(t))
            frames.append(model.decode(state)["image"])
    video = torch.stack(frames, 1)
    assert video.shape == (2, 4, 3, 32, 32)
    assert video.min() >= 0 and video.max() <= 1


def test_discount_head_gives_continuation(changed, rows) -> None:
    model = changed(model={"discount": True}).build(3, seed=1)
    batch = arrival(rows(2, 5))
    batch["is_terminal"][:, 2] = True
    _, _, metrics = model.dynamics.loss(tokens_of(model, batch), batch, seeded())
    assert metrics["wm/discount_loss"] > 0
    state = model.step(model.initial(2), torch.zeros(2, 3), generator=seeded())
    cont = model.readout(state, frozenset({"cont"}))["cont"]
    assert cont.shape == (2,) and bool((cont > 0).all() and (cont <= 1).all())


ABLATIONS = {
    "pixel patches": {"autoencoder": {"stem": "patch"}},
    "mask 0": {"autoencoder": {"mask_ratio": 0.0}},
    "mask .25": {"autoencoder": {"mask_ratio": 0.25}},
    "mask .5": {"autoencoder": {"mask_ratio": 0.5}},
    "mask .9": {"autoencoder": {"mask_ratio": 0.9}},
    "no reward prediction": {"autoencoder": {"reward_prediction": False}},
    "CLS token only": {"vit": {"tokens": "cls"}},
    "deep encoder": {"autoencoder": {"encoder_layers": 3}},
    "deep decoder": {"autoencoder": {"decoder_layers": 2}},
    "demonstrations": {"model": {"demonstrations": 1.0}, "autoencoder": {"demonstrations": 10.0}},
    "deep ViTs": {"vit": {"encoder_layers": 2, "decoder_layers": 2}},
    "elu after img_in": {"rssm": {"img_in_act": "elu"}},
    "discount head": {"model": {"discount": True}},
    "reinforce": {"behavior": {"actor_grad": "reinforce"}},
    "both gradients": {"behavior": {"actor_grad": "both"}},
    "return normaliser": {"behavior": {"return_norm": True}},
    "reward normaliser off": {"behavior": {"reward_norm": 1.0}},
    "few starts": {"behavior": {"starts": 3}},
}


@pytest.mark.parametrize("name", ABLATIONS)
def test_every_ablation_trains_and_acts(changed, batches, name: str) -> None:
    preset = changed(**ABLATIONS[name])
    model = preset.build(3, seed=1)
    learner = preset.build_learner(model)
    before = {k: [p.clone() for p in m.parameters()] for k, m in model.modules_by_name().items()}
    metrics = learner.update(batches(learner))
    assert ("ae/reward_loss" in metrics) == (name != "no reward prediction")
    assert ("wm/discount_loss" in metrics) == (name == "discount head")
    for part, module in model.modules_by_name().items():
        changed_any = any(
            not p.equal(q) for p, q in zip(module.parameters(), before[part], strict=True)
        )
        assert changed_any, part
    obs = {"image": torch.zeros(1, 32, 32, 3, dtype=torch.uint8)}
    with torch.no_grad():
        state = model.observe(model.initial(1), torch.zeros(1, 3), obs, torch.ones(1).bool())
        assert model.act(state, mode=True).shape == (1, 3)
        assert model.decode(state)["image"].shape == (1, 3, 32, 32)


def test_settings_are_checked() -> None:
    with pytest.raises(ValueError, match="got 'both', expected 'all' or 'cls'"):
        TokenViTConfig(tokens="both")


def test_a_readout_without_a_head_is_refused(model) -> None:
    with pytest.raises(ModelError, match=r"predicts no 'cont'; it predicts reward, value"):
        model.rollout(model.initial(1), torch.zeros(1, 1, 1, 3), want=frozenset({"cont"}))
