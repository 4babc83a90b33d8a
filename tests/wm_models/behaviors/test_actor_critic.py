"""Returns, normalisers, the slow critic, and the gradient of the actor."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from wm_models.behaviors.actor_critic import Behavior, BehaviorConfig, Imagined, Trajectory
from wm_models.behaviors.returns import ReturnScale, StreamNorm, lambda_return
from wm_models.nets.freezing import frozen
from wm_models.nets.rssm import RSSMState


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(("lam", "expected"), [(1.0, (1 - 0.99**15) / 0.01), (0.0, 1.0)])
def test_published_returns(lam: float, expected: float) -> None:
    ones = torch.ones(16, 2)
    returns = lambda_return(ones, 0.99 * ones, torch.zeros(16, 2), lam)
    assert returns.shape == (15, 2)
    assert_close(returns[0], torch.full((2,), expected), rtol=1e-4, atol=0)


@pytest.mark.parametrize("lam", [0.0, 0.5, 0.95, 1.0])
def test_the_true_value_is_a_fixed_point(lam: float) -> None:
    ones = torch.ones(16, 2)
    returns = lambda_return(ones, 0.99 * ones, 100 * ones, lam)
    assert_close(returns, 100 * torch.ones(15, 2))


def test_returns_follow_their_recursion() -> None:
    g = seeded()
    r, d, v = (torch.rand(6, 3, generator=g) for _ in range(3))
    returns = lambda_return(r, d, v, 0.7)
    assert_close(returns[4], r[4] + d[4] * v[5])
    assert_close(returns[2], r[2] + d[2] * (0.3 * v[3] + 0.7 * returns[3]))
    d[3] = 0.0  # rewards after an end do not count
    assert_close(lambda_return(r, d, v, 0.7)[3], r[3])


def test_stream_norm_figures() -> None:
    norm, five = StreamNorm(0.99), torch.full((4,), 5.0)
    for _ in range(100):
        norm.update(five)
    assert_close(norm.mag, torch.tensor(5 - 4 * 0.99**100), rtol=1e-4, atol=0)
    for _ in range(2000):
        norm.update(five)
    assert_close(norm(five), torch.ones(4), rtol=1e-3, atol=0)


def test_stream_norm_off() -> None:
    norm, reward = StreamNorm(1.0), torch.randn(7, generator=seeded())
    norm.update(reward)
    assert_close(norm(reward), reward)
    assert norm.mag == 1.0


def test_return_scale() -> None:
    small = ReturnScale()
    small.update(torch.linspace(0, 0.5, 101))
    assert small.divisor == 1.0

    def settled(factor: float) -> torch.Tensor:
        scale = ReturnScale()
        for _ in range(2000):
            scale.update(factor * torch.linspace(0, 10, 101))
        return scale.divisor

    assert_close(settled(1.0), torch.tensor(9.0), rtol=1e-3, atol=0)
    assert_close(settled(100.0) / settled(1.0), torch.tensor(100.0), rtol=1e-3, atol=0)


def test_slow_critic_follows_every_hundredth_update(model) -> None:
    behavior = Behavior(model.critic, BehaviorConfig())

    def equal() -> bool:
        pairs = zip(behavior.target.parameters(), model.critic.parameters(), strict=True)
        return all(a.equal(b) for a, b in pairs)

    for update in range(201):
        with torch.no_grad():
            for p in model.critic.parameters():
                p.add_(1.0)
        behavior.update_target(model.critic)
        assert equal() == (update % 100 == 0), update
    assert not any(p.requires_grad for p in behavior.target.parameters())


def trajectory_of(model, behavior: Behavior, batch: int = 2, length: int = 3) -> Trajectory:
    post = model.dynamics.rssm.initial(batch, torch.zeros(1))
    post = RSSMState(*(x[:, None].expand(-1, length, *x.shape[1:]).clone() for x in post))
    terminal = torch.zeros(batch, length).bool()
    return behavior.trajectory(
        model.imagination, model.actor, model.critic, post, terminal, seeded()
    )


def imagined_losses(model, config: BehaviorConfig, batch: int = 2, length: int = 3):
    behavior = Behavior(model.critic, config)
    with frozen(model.dynamics):
        trajectory = trajectory_of(model, behavior, batch, length)
        behavior.update_scales(trajectory, model.critic)
        return behavior.losses(model.actor, model.critic, trajectory)


def state_of(model, behavior: Behavior) -> dict[str, torch.Tensor]:
    state = {**behavior.state_dict(), "critic.scale": model.critic.scale}
    return {name: value.clone() for name, value in state.items()}


def test_only_updates_write_state(model) -> None:
    """A trajectory and its losses change nothing; the same losses again are equal."""
    behavior = Behavior(model.critic, BehaviorConfig(horizon=3, return_norm=True))
    before = state_of(model, behavior)
    trajectory = trajectory_of(model, behavior)
    first = behavior.losses(model.actor, model.critic, trajectory)[:2]
    second = behavior.losses(model.actor, model.critic, trajectory)[:2]
    assert all(a.equal(b) for a, b in zip(first, second, strict=True))
    assert all(value.equal(before[name]) for name, value in state_of(model, behavior).items())
    behavior.update_scales(trajectory, model.critic)
    changed = {
        name for name, value in state_of(model, behavior).items() if value.ne(before[name]).any()
    }
    assert changed == {"reward_norm.mag", "return_scale.range", "critic.scale"}


def test_each_loss_has_gradients_in_its_own_part_only(model) -> None:
    actor_loss, critic_loss, _ = imagined_losses(model, BehaviorConfig(horizon=4))
    actor_loss.backward()
    assert all(p.grad is not None for p in model.actor.parameters())
    assert all(p.grad is None for p in model.dynamics.parameters())
    assert all(p.grad is None for p in model.critic.parameters())
    model.zero_grad(set_to_none=True)
    critic_loss.backward()
    assert all(p.grad is not None for p in model.critic.parameters())
    assert all(p.grad is None for p in model.actor.parameters())
    assert all(p.requires_grad for p in model.dynamics.parameters())  # trainable again


@pytest.mark.parametrize("kind", ["dynamics", "reinforce", "both"])
def test_every_estimator_moves_the_actor(model, kind: str) -> None:
    actor_loss, _, _ = imagined_losses(model, BehaviorConfig(horizon=4, actor_grad=kind))
    actor_loss.backward()
    assert all(torch.isfinite(p.grad).all() for p in model.actor.parameters())
    assert model.actor.mean.weight.grad.abs().sum() > 0


def test_estimators_agree_on_the_direction(model) -> None:
    """On average over many draws: the pathwise and the score-function gradient of one objective."""

    def mean_gradient(kind: str, draws: int) -> torch.Tensor:
        config = BehaviorConfig(
            horizon=2,
            actor_grad=kind,
            entropy=0.0,
            reward_norm=1.0,
            sample_gradient="exact",
            detach_action=True,
        )
        model.zero_grad(set_to_none=True)
        loss, _, _ = imagined_losses(model, config, draws, 1)
        loss.backward()
        return model.actor.mean.bias.grad.clone()

    with torch.no_grad():  # let rewards and returns depend on the state
        for p in (*model.dynamics.reward.parameters(), *model.dynamics.rssm.img_in.parameters()):
            p.mul_(3.0)
    pathwise, score = mean_gradient("dynamics", 4000), mean_gradient("reinforce", 40_000)
    assert torch.cosine_similarity(pathwise, score, dim=0) > 0.8


def test_the_sample_gradient_is_chosen(model) -> None:
    """Of the first imagined action, by the actor's mean before its tanh."""

    def by_bias(kind: str) -> torch.Tensor:
        behavior = Behavior(model.critic, BehaviorConfig(horizon=2, sample_gradient=kind))
        state = model.dynamics.rssm.initial(50, torch.zeros(1))
        action = behavior.imagine(model.imagination, model.actor, state, seeded()).action[0]
        return torch.autograd.grad(action.sum(), model.actor.mean.bias)[0]

    mean = model.actor(torch.zeros(50, model.config.rssm.feat)).mean
    assert_close(by_bias("released"), (1 - mean.square()).sum(0))
    assert (by_bias("exact") < 0.9 * by_bias("released")).all()


@pytest.mark.parametrize("detach", [True, False])
def test_the_score_function_gradient_with_and_without_detached_actions(model, detach: bool) -> None:
    """log pi(a) = -z^2 / 2 - ln(std mass): with the released sample z = (a - mean) / std is noise,
    so that an attached action leaves only the second term a gradient."""
    config = BehaviorConfig(actor_grad="reinforce", detach_action=detach)
    feat = torch.randn(4, 5, model.config.rssm.feat, generator=seeded())
    policy = model.actor(feat[:-1])
    action = policy.sample(seeded(1), "released")
    returns, value = (torch.randn(n, 5, generator=seeded(n)) for n in (3, 4))
    rollout = Imagined(feat, action, policy.entropy())
    here = model.actor(feat[:-2])
    objective = Behavior(model.critic, config)._objective(here, rollout, returns, value)
    (gradient,) = torch.autograd.grad(objective.sum(), model.actor.mean.bias, retain_graph=True)

    policy = model.actor(feat[:-2])
    unit = torch.distributions.Normal(0.0, 1.0)
    mass = unit.cdf((1 - policy.mean) / policy.std) - unit.cdf((-1 - policy.mean) / policy.std)
    log_density = -torch.log(policy.std * mass)
    if detach:
        log_density = log_density - ((action[:-1].detach() - policy.mean) / policy.std).square() / 2
    advantage = (returns[1:] - value[:-2])[..., None]
    (expected,) = torch.autograd.grad((log_density * advantage).sum(), model.actor.mean.bias)
    assert_close(gradient, expected, atol=1e-4, rtol=1e-4)


def test_the_entropy_bonus_widens_the_policy(model) -> None:
    with torch.no_grad():
        for p in (*model.dynamics.reward.parameters(), *model.critic.parameters()):
            p.zero_()
    loss, _, metrics = imagined_losses(model, BehaviorConfig(horizon=4, entropy=1.0))
    loss.backward()
    assert (loss < 0) == (metrics["ac/entropy"] > 0)
    assert model.actor.std.bias.grad.sum() < 0  # a step down the gradient widens the policy


def test_discounts(model, changed) -> None:
    feat, ended = torch.zeros(3, 2, model.config.rssm.feat), torch.tensor([False, True])
    plain = Behavior(model.critic, BehaviorConfig())._discount(model.imagination, feat, ended)
    assert_close(plain, torch.full((3, 2), 0.99))  # nothing ends without a discount head
    model = changed(model={"discount": True}).build(3, seed=1)
    learned = Behavior(model.critic, BehaviorConfig())._discount(model.imagination, feat, ended)
    assert_close(learned[0], torch.tensor([0.99, 0.0]))  # replayed states: from the data
    assert_close(learned[1:], torch.sigmoid(model.dynamics.discount(feat[1:])))


def test_starts_are_drawn_without_repeats(model) -> None:
    behavior = Behavior(model.critic, BehaviorConfig(starts=5))
    rows = behavior.start_rows(20, seeded(), torch.device("cpu"))
    assert len(rows) == len(rows.unique()) == 5
    assert len(behavior.start_rows(4, seeded(), torch.device("cpu"))) == 4
    all_rows = Behavior(model.critic, BehaviorConfig(starts=0))
    assert all_rows.start_rows(20, seeded(), torch.device("cpu")).equal(torch.arange(20))


def test_rewards_that_are_not_finite_change_no_state(model) -> None:
    behavior = Behavior(model.critic, BehaviorConfig(horizon=3, return_norm=True))
    with torch.no_grad():
        model.dynamics.reward.net[-1].bias.fill_(float("nan"))
    before = state_of(model, behavior)
    with pytest.raises(FloatingPointError, match="ac/reward"):
        behavior.update_scales(trajectory_of(model, behavior), model.critic)
    assert all(value.equal(before[name]) for name, value in state_of(model, behavior).items())


def test_imitation_counts_demonstrated_rows_that_have_an_action(model) -> None:
    behavior = Behavior(model.critic, BehaviorConfig())
    feat = torch.randn(1, 4, model.config.rssm.feat, generator=seeded())
    c = model.config.rssm
    post = RSSMState(feat[..., : c.deter], feat[..., c.deter :].unflatten(-1, (c.stoch, c.classes)))
    batch = {
        "demo": torch.tensor([[True, False, True, True]]),
        "is_last": torch.tensor([[False, False, False, True]]),
        "next_action": torch.zeros(1, 4, 3),
    }

    def loss(row: int, value: float) -> float:
        actions = batch["next_action"].clone()
        actions[:, row] = value
        loss_value = behavior.imitation_loss(model.actor, post, {**batch, "next_action": actions})
        return loss_value.item()

    base = loss(0, 0.0)
    assert loss(1, 0.9) == base and loss(3, 0.9) == base
    assert loss(0, 0.9) != base and loss(2, 0.9) != base
    assert loss(0, 1.0) == loss(0, 1.0 - 1e-6)  # at the box's edge the density stays finite


def test_settings_are_checked() -> None:
    with pytest.raises(
        ValueError, match="got 'pathwise', expected 'dynamics', 'reinforce' or 'both'"
    ):
        BehaviorConfig(actor_grad="pathwise")
    with pytest.raises(
        ValueError, match=r"sample_gradient: got .*, expected 'exact' or 'released'"
    ):
        BehaviorConfig(sample_gradient="inverse")


def test_imagination_is_long_enough_for_an_action_to_change_a_return() -> None:
    """The last action of a rollout changes no return that counts the reward of arriving."""
    with pytest.raises(ValueError, match=r"BehaviorConfig\.horizon: got 1, expected at least 2"):
        BehaviorConfig(horizon=1)
    assert BehaviorConfig(horizon=1, returns="next").horizon == 1


NEXT = {"returns": "next", "bootstrap": "online", "target": "ema", "slow_regularizer": 1.0}


def test_returns_of_what_follows(model) -> None:
    """R_k = r_{k+1} + d_{k+1} ((1 - lam) v_{k+1} + lam R_{k+1}), R_H = v_H (DreamerV3)."""
    behavior = Behavior(model.critic, BehaviorConfig(horizon=3, lam=0.7, reward_norm=1.0, **NEXT))
    with torch.no_grad():
        t = trajectory_of(model, behavior)
        got = behavior._returns(t)
        last = t.value[3]
        for k in (2, 1, 0):
            last = t.reward[k + 1] + t.discount[k + 1] * (0.3 * t.value[k + 1] + 0.7 * last)
            assert_close(got[k], last)
        assert_close(t.value, model.critic.normalized(t.rollout.feat))


def test_the_objective_of_what_follows_is_the_advantage_of_every_imagined_action(model) -> None:
    config = BehaviorConfig(horizon=3, return_norm=True, entropy=0.5, **NEXT)
    behavior = Behavior(model.critic, config)
    with frozen(model.dynamics):
        t = trajectory_of(model, behavior)
        behavior.update_scales(t, model.critic)
        actor_loss, critic_loss, _ = behavior.losses(model.actor, model.critic, t)
    returns, scale = behavior._returns(t), behavior.return_scale.divisor
    weight = torch.cumprod(torch.cat([torch.ones_like(t.discount[:1]), t.discount[:-1]]), 0)[:-1]
    advantage = (returns - t.value[:-1]) / scale
    assert_close(actor_loss, -(weight * (advantage + 0.5 * t.rollout.entropy)).mean())
    feat = t.rollout.feat[:-1].detach()
    both = model.critic.loss(feat, returns) + model.critic.loss(feat, behavior.target(feat))
    assert_close(critic_loss, (weight * both).mean())
    critic_loss.backward()
    actor_loss.backward()
    assert all(p.grad is not None for p in model.critic.parameters())
    assert all(p.grad is None for p in behavior.target.parameters())


def test_the_actors_loss_leaves_the_online_critic_alone(model) -> None:
    actor_loss, _, _ = imagined_losses(model, BehaviorConfig(horizon=3, **NEXT))
    actor_loss.backward()
    assert all(p.grad is None for p in model.critic.parameters())
    assert all(p.requires_grad for p in model.critic.parameters())


def test_an_ema_critic_follows_every_update(model) -> None:
    behavior = Behavior(model.critic, BehaviorConfig(target="ema", target_rate=0.02))
    before = [p.clone() for p in behavior.target.parameters()]
    with torch.no_grad():
        for p in model.critic.parameters():
            p.add_(1.0)
    for _ in range(2):
        behavior.update_target(model.critic)
    for slow, old in zip(behavior.target.parameters(), before, strict=True):
        assert_close(slow, old + 1.0 - 0.98**2, atol=1e-5, rtol=0)


def test_gradients_of_both_kinds_of_return_reach_the_actor(model) -> None:
    for kind in ("dynamics", "reinforce", "both"):
        model.zero_grad(set_to_none=True)
        loss, _, _ = imagined_losses(model, BehaviorConfig(horizon=3, actor_grad=kind, **NEXT))
        loss.backward()
        assert model.actor.mean.weight.grad.abs().sum() > 0
