"""One loss for all parts: what it moves, exact resume, replayed returns, weights of the losses."""

from __future__ import annotations

import copy
import io
from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from tests.wm_models.families.dreamer_v3n.v3n_tiny import ACTIONS, TINY, log_rows
from wm_models.behaviors.actor_critic import Behavior, Imagined, Trajectory
from wm_models.errors import ModelError
from wm_models.interface.learner import arrival, without_context
from wm_models.registry import PRESETS


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def changed(**behavior: object):
    learner = replace(TINY.learner, behavior=replace(TINY.learner.behavior, **behavior))
    return replace(TINY, learner=learner)


def learner_of(preset=TINY, seed: int = 0):
    return preset.build_learner(preset.build(ACTIONS, seed=1), seed=seed)


def weights(learner) -> list[torch.Tensor]:
    slow = learner.behavior.target.parameters()
    return [p.detach().clone() for p in (*learner.model.parameters(), *slow)]


def lived(learner) -> None:
    """Two updates, so that output layers are not zero any more."""
    for i in range(2):
        learner.update({"agent": log_rows(2, 5, seed=i)})


def test_schedule_of_the_published_preset() -> None:
    c = PRESETS["dreamer_v3n"].learner
    assert (c.agent_batch.batch, c.agent_batch.length - 1) == (16, 64)
    assert (c.behavior.horizon, c.behavior.starts, c.behavior.lam) == (15, 0, 0.95)
    for each in (c.world_model, c.actor, c.critic):
        assert (each.algorithm, each.lr, each.eps, each.warmup) == ("laprop", 4e-5, 1e-20, 1000)
        assert (each.clip_kind, each.clip, each.decay) == ("agc", 0.3, 0.0)


def test_training_resumes_exactly() -> None:
    """Weights and state_dict, through a file, continue with identical bits."""
    learner = learner_of(seed=5)
    lived(learner)
    file = io.BytesIO()
    torch.save({"model": learner.model.state_dict(), "learner": learner.state_dict()}, file)
    for i in range(2, 4):
        learner.update({"agent": log_rows(2, 5, seed=i)})
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    other = learner_of()
    other.model.load_state_dict(saved["model"])
    other.load_state_dict(saved["learner"])
    for i in range(2, 4):
        other.update({"agent": log_rows(2, 5, seed=i)})
    assert all(a.equal(b) for a, b in zip(weights(learner), weights(other), strict=True))


@pytest.mark.parametrize("field", ["reward", "action"])
def test_a_batch_that_is_not_finite_changes_nothing(field: str) -> None:
    learner = learner_of()
    lived(learner)
    before, state = weights(learner), copy.deepcopy(learner.state_dict())
    bad = log_rows(2, 5)
    bad[field][:, 1] = float("nan")
    with pytest.raises(FloatingPointError, match="training diverged"):
        learner.update({"agent": bad})
    assert all(a.equal(b) for a, b in zip(weights(learner), before, strict=True))
    after = learner.state_dict()
    assert after["updates"] == state["updates"]
    for key, value in state["behavior"].items():
        assert after["behavior"][key].equal(value)


def gradients(learner, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    learner.model.zero_grad(set_to_none=True)
    loss.backward()
    return {
        n: torch.zeros_like(p) if p.grad is None else p.grad.clone()
        for n, p in learner.model.named_parameters()
    }


def batch_of(seed: int = 3) -> dict[str, torch.Tensor]:
    return without_context(arrival(log_rows(2, 5, seed=seed)), False)


def test_replayed_returns_are_what_reaches_the_world_model_from_the_behaviour() -> None:
    """The joint gradient of encoder and dynamics is the world model's own, without that term."""
    plain, full = learner_of(changed(replay_value=0.0)), learner_of()
    for learner in (plain, full):
        lived(learner)
    full.model.load_state_dict(plain.model.state_dict())
    full.load_state_dict(plain.state_dict())
    alone = learner_of()
    alone.model.load_state_dict(plain.model.state_dict())
    generator = torch.Generator()
    generator.set_state(plain.generator.get_state())
    batch, model = batch_of(), alone.model
    own = gradients(alone, model.dynamics.loss(model.features(batch), batch, generator)[0])
    world = [n for n in own if n.startswith(("encoder", "dynamics"))]
    joint = gradients(plain, plain.joint_loss(batch)[0])
    for name in world:
        assert_close(joint[name], own[name], msg=name)
    assert all(joint[n].abs().sum() > 0 for n in joint if n.startswith(("actor", "critic")))
    more = gradients(full, full.joint_loss(batch)[0])
    assert any((more[n] - joint[n]).abs().sum() > 1e-6 for n in world if n.startswith("encoder"))
    assert not (more["critic.net.0.weight"] - joint["critic.net.0.weight"]).eq(0).all()
    for name in (n for n in joint if n.startswith("actor")):
        assert more[name].equal(joint[name])


def test_world_model_and_behaviour_step_together() -> None:
    """Imagination is that of the weights before the step, not of the world model's after it."""
    joint, apart = (
        learner_of(),
        learner_of(replace(TINY, learner=replace(TINY.learner, joint=False))),
    )
    got = [each.update({"agent": log_rows(2, 5)}) for each in (joint, apart)]
    assert got[0]["wm/image_loss"] == got[1]["wm/image_loss"]
    assert got[0]["ac/action_abs"] != got[1]["ac/action_abs"] or (
        got[0]["ac/actor_loss"] != got[1]["ac/actor_loss"]
    )
    assert set(joint.optimizers) == {"wm", "actor", "critic"}
    assert {o.updates for o in joint.optimizers.values()} == {1}


def trajectory_of(critic, count: int, feat: int, returns: torch.Tensor) -> Trajectory:
    """One imagined step from each of ``count`` states, with given returns (count,)."""
    two = torch.zeros(2, count)
    return Trajectory(
        Imagined(torch.zeros(2, count, feat), torch.zeros(1, count, ACTIONS), two[:1]),
        reward=torch.stack([two[0], returns]),
        discount=two,
        value=two,
        rows=torch.arange(count),
    )  # fmt: skip


@pytest.mark.parametrize("lam", [0.0, 0.5, 1.0])
def test_replayed_returns_follow_their_recursion(lam: float) -> None:
    """R_t = r_{t+1} + g c_{t+1} ((1 - l) V_{t+1} + l R_{t+1}) with the imagined return V; at an
    episode's last row V alone, and no loss there."""
    model = TINY.build(ACTIONS, seed=1)
    behavior = Behavior(model.critic, changed(lam=lam, slow_regularizer=0.0).learner.behavior)
    g, gamma = seeded(), 0.9
    boot, reward = torch.randn(2, 5, generator=g), torch.randn(2, 5, generator=g)
    first, last, terminal = (torch.zeros(2, 5).bool() for _ in range(3))
    first[:, 0] = first[0, 3] = True  # row 2 of window 0 ends an episode that was cut
    last[1, 2] = first[1, 3] = terminal[1, 2] = True
    batch = {"is_first": first, "is_last": last, "is_terminal": terminal, "reward": reward}
    feat = torch.randn(2, 5, model.config.rssm.feat, generator=g)
    seen = []

    def loss(feat: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        seen.append(target)
        return torch.ones_like(target)

    model.critic.loss = loss
    trajectory = trajectory_of(model.critic, 10, model.config.rssm.feat, boot.flatten())
    got = behavior.replay_loss(model.critic, feat, batch, trajectory, gamma)
    for b in range(2):
        ahead = boot[b, 4]
        for t in (3, 2, 1, 0):
            ended = bool(last[b, t + 1]) or (t + 2 < 5 and bool(first[b, t + 2]))
            mixed = boot[b, t + 1] if ended else (1 - lam) * boot[b, t + 1] + lam * ahead
            ahead = reward[b, t + 1] + gamma * (not terminal[b, t + 1]) * mixed
            assert_close(seen[0][b, t], ahead, msg=f"{b} {t}")
    assert_close(got, torch.tensor(6 / 8))  # two of eight states are the last of an episode


def test_states_that_were_no_starts_go_on_from_their_value() -> None:
    model = TINY.build(ACTIONS, seed=1)
    with torch.no_grad():
        model.critic.net[-1].weight.normal_(generator=seeded())
    behavior = Behavior(model.critic, changed(lam=0.0, slow_regularizer=0.0).learner.behavior)
    feat = torch.randn(1, 3, model.config.rssm.feat, generator=seeded())
    no = torch.zeros(1, 3).bool()
    batch = {"is_first": no, "is_last": no, "is_terminal": no, "reward": torch.zeros(1, 3)}
    trajectory = trajectory_of(model.critic, 1, model.config.rssm.feat, torch.tensor([50.0]))
    trajectory = trajectory._replace(rows=torch.tensor([2]))
    value = model.critic.normalized(feat).detach()
    seen = []
    model.critic.loss = lambda feat, target: seen.append(target) or target
    behavior.replay_loss(model.critic, feat, batch, trajectory, 1.0)
    assert_close(seen[0], torch.stack([value[0, 1], torch.tensor(50.0)])[None])


def test_the_weight_of_a_start_is_its_predicted_discount() -> None:
    preset = changed(horizon=2, entropy=0.0, slow_regularizer=0.0)
    learner = learner_of(preset)
    lived(learner)
    model, behavior = learner.model, learner.behavior
    feat = torch.randn(3, 2, model.config.rssm.feat, generator=seeded())
    ended = torch.tensor([True, False])
    own = behavior._discount(model.imagination, feat, ended)
    assert_close(own, model.dynamics.discount.predict(feat))
    plain = Behavior(model.critic, replace(behavior.config, weigh_start=False))
    known = plain._discount(model.imagination, feat, ended)
    assert_close(known[0], torch.tensor([0.0, model.dynamics.gamma]))

    def critic_loss(b: Behavior, discount: torch.Tensor) -> torch.Tensor:
        ones = torch.ones(3, 2)
        actions = torch.zeros(2, 2, ACTIONS)
        rollout = Imagined(feat, actions, torch.zeros(2, 2))
        made = Trajectory(rollout, 0 * ones, discount, 0 * ones, torch.arange(2))
        return b.losses(model.actor, model.critic, made)[1].detach()

    halves = torch.full((3, 2), 0.5)
    assert_close(critic_loss(behavior, halves), 0.5 * critic_loss(plain, halves))


def test_nothing_is_learned_through_imagined_steps() -> None:
    learner = learner_of()
    state = learner.model.initial(4)
    rollout = learner.behavior.imagine(
        learner.model.imagination, learner.model.actor, state, seeded()
    )
    assert not any(x.requires_grad for x in rollout)
    through = Behavior(learner.model.critic, changed(actor_grad="dynamics").learner.behavior)
    rollout = through.imagine(learner.model.imagination, learner.model.actor, state, seeded())
    assert rollout.feat.requires_grad


@pytest.mark.parametrize("kind", ["dynamics", "reinforce", "both"])
@pytest.mark.parametrize("joint", [True, False])
def test_every_estimator_trains_every_part(kind: str, joint: bool) -> None:
    preset = changed(actor_grad=kind)
    preset = replace(preset, learner=replace(preset.learner, joint=joint))
    learner = learner_of(preset)
    parts = learner.model.modules_by_name()
    before = {k: [p.detach().clone() for p in m.parameters()] for k, m in parts.items()}
    lived(learner)
    for name, module in parts.items():
        pairs = zip(module.parameters(), before[name], strict=True)
        assert any(not p.equal(q) for p, q in pairs), name


def test_the_world_model_can_start_alone() -> None:
    preset = replace(TINY, learner=replace(TINY.learner, world_model_init=1))
    learner = learner_of(preset)
    assert "ac/actor_loss" not in learner.update({"agent": log_rows(2, 5)})
    assert "ac/actor_loss" in learner.update({"agent": log_rows(2, 5)})
    assert [o.updates for o in learner.optimizers.values()] == [2, 1, 1]


def test_replayed_returns_need_values_of_what_follows() -> None:
    with pytest.raises(
        ModelError, match=r"replay_value: got 0\.3, expected 0 with returns 'arrival'"
    ):
        changed(returns="arrival")
