"""DINO-WM: the contract, causality, the fast rollout equal to the plain one, sizes as published."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from tests.wm_models.families.dino_wm.dino_tiny import EMBODIMENT, TINY, build, rows
from wm_models.errors import ModelError
from wm_models.families.dino_wm.history import DinoState
from wm_models.families.dino_wm.model import DinoWorldModel
from wm_models.families.dino_wm.predictor import FEW, Predictor, PredictorConfig
from wm_models.families.dino_wm.tokens import EmbeddingConfig, TokenConfig
from wm_models.interface.action_scaling import ActionAdapter
from wm_models.interface.world_model import Rollout, WorldModel
from wm_models.registry import PRESETS
from wm_models.testing.contracts import WorldModelContract, leaves, seeded

LAYOUTS = {
    "channels": TINY.model.tokens,
    "repeated": replace(TINY.model.tokens, proprio=EmbeddingConfig(4, repeat=2)),
    "tokens": TokenConfig(concat_dim=0),
}


@pytest.fixture(params=LAYOUTS)
def tokens(request: pytest.FixtureRequest) -> TokenConfig:
    return LAYOUTS[request.param]


class TestChannels(WorldModelContract):
    def make_model(self) -> WorldModel:
        return build()

    def training(self, model: WorldModel) -> Callable[[], float]:
        learner = TINY.build_learner(model)
        learner.begin_with(3)
        windows = rows(4, 7)
        return lambda: learner.update({"windows": windows})["wm/loss"]


class TestTokens(TestChannels):
    def make_model(self) -> WorldModel:
        return build(tokens=TokenConfig(concat_dim=0))


class TestOneFrame(TestChannels):
    def make_model(self) -> WorldModel:
        return build(context=1, residual=True)


class TestCached(TestChannels):
    def make_model(self) -> WorldModel:
        return build(slide="cached")

    @pytest.mark.parametrize(
        ("batch", "samples", "horizon"), [(1, 1, 1), (3, 5, 1), (1, 5, 2), (3, 1, 2)]
    )
    def test_rollout_is_the_expanded_step_loop(
        self, model: WorldModel, batch: int, samples: int, horizon: int
    ) -> None:
        """As long as the window grows; then it is approximate, see the test of sliding."""
        super().test_rollout_is_the_expanded_step_loop(model, batch, samples, horizon)


def parameters(module: nn.Module | None) -> int:
    assert module is not None
    return sum(p.numel() for p in module.parameters())


@pytest.fixture(scope="module")
def reference() -> DinoWorldModel:
    embodiment = replace(EMBODIMENT, proprio_mean=(0.0,) * 4, proprio_std=(1.0,) * 4)
    return PRESETS["dino_wm_repo"].build(embodiment).requires_grad_(False)  # type: ignore[return-value]


def test_sizes_as_published(reference: DinoWorldModel) -> None:
    assert parameters(reference.dynamics.predictor) == 20_122_600
    assert parameters(reference.decoder) == 10_140_163
    assert parameters(reference.dynamics.action) == 110  # two numbers, five of them side by side
    assert parameters(reference.encoder.proprio) == 50
    assert reference.layout.tokens == (196, 404)
    assert reference.spec.obs_keys["image"] == (3, 224, 224)


def test_size_with_whole_tokens() -> None:
    repo = PRESETS["dino_wm_repo"]
    model = replace(repo.model, tokens=TokenConfig(concat_dim=0))  # type: ignore[attr-defined]
    built = replace(repo, model=model).build(EMBODIMENT)  # type: ignore[call-arg]
    assert built.layout.tokens == (198, 384)  # type: ignore[attr-defined]
    assert parameters(built.dynamics.predictor) == 19_129_344  # type: ignore[attr-defined]


def test_the_small_preset_is_small() -> None:
    assert parameters(PRESETS["dino_wm_cpu"].build(EMBODIMENT)) < 1e6


def window(model: DinoWorldModel, batch: int = 2, frames: int = 3) -> tuple[Tensor, Tensor]:
    shape = (batch, frames, *model.layout.observed)
    observed = torch.randn(shape, generator=seeded(3), dtype=torch.float64)
    action = torch.randn(
        batch, frames, model.spec.action_dim, generator=seeded(4), dtype=torch.float64
    )
    return observed, action


def test_a_frame_attends_to_itself_and_earlier_frames(tokens: TokenConfig) -> None:
    model = build(tokens=tokens).double().eval()
    observed, action = window(model)
    changed = observed.clone()
    changed[:, 2, :, 0] += 1.0
    a, b = (model.dynamics.predictor(model.tokens(x, action)) for x in (observed, changed))
    assert torch.equal(a[:, :2], b[:, :2])
    assert not torch.allclose(a[:, 2], b[:, 2])
    changed = observed.clone()
    changed[:, 0, 0, 0] += 1.0  # one token of frame 0 reaches every token of every frame
    c = model.dynamics.predictor(model.tokens(changed, action))
    assert ((a - c).abs().amax(-1) > 0).all()


def test_an_action_changes_only_later_frames(tokens: TokenConfig) -> None:
    model = build(tokens=tokens).double().eval()
    observed, action = window(model)
    other = action.clone()
    other[:, 1] += 1.0
    a, b = (model.dynamics.predictor(model.tokens(observed, x)) for x in (action, other))
    assert torch.equal(a[:, 0], b[:, 0])
    assert not torch.allclose(
        model.layout.without_action(a)[:, 1], model.layout.without_action(b)[:, 1]
    )


def test_incremental_passes_equal_the_full_forward_pass(tokens: TokenConfig) -> None:
    model = build(tokens=tokens).double().eval()
    net = model.dynamics.predictor
    x = model.tokens(*window(model))
    full = net(x)
    cache = net.remember(x[:, :1])
    for t in (1, 2):
        out, cache = net.grow(x[:, t], cache, t)
        assert_close(out, full[:, t], rtol=0, atol=1e-12)
    assert_close(net.newest(x), full[:, 2], rtol=0, atol=1e-12)


@pytest.mark.parametrize("tokens", [1, FEW, FEW + 1])
def test_frame_by_frame_is_the_masked_forward(tokens: int) -> None:
    torch.manual_seed(0)
    config = PredictorConfig(depth=3, heads=2, head_width=8, hidden=16, dropout=0.1)
    net = Predictor(config, 3, tokens, 12).double().eval()
    x = torch.randn(2, 3, tokens, 12, generator=seeded(), dtype=torch.float64)
    full = net(x)
    assert_close(net.newest(x), full[:, 2], rtol=0, atol=1e-12)
    out, _ = net.grow(x[:, 2], net.remember(x[:, :2]), 2)
    assert_close(out, full[:, 2], rtol=0, atol=1e-12)


def observed_state(model: DinoWorldModel, batch: int, frames: int) -> DinoState:
    state = model.initial(batch)
    check = TestChannels()
    for t in range(frames):
        state = model.observe(
            state,
            check.actions(model, batch, seed=t),
            check.make_obs(model, batch, seed=t),
            torch.full((batch,), t == 0),
        )
    return state


def rollout_without_cache(model: DinoWorldModel, state: DinoState, actions: Tensor) -> Rollout:
    """The rollout of the contract: step after step, without a cache."""
    want = frozenset({"feat", "visual", "proprio"})
    return WorldModel._rollout_chunk(model, state, actions, want, True, None)


@pytest.mark.parametrize("context", [1, 3])
@pytest.mark.parametrize("frames", [1, 2, 4])
@torch.no_grad()
def test_the_fast_rollout_equals_the_one_without_cache(
    tokens: TokenConfig, context: int, frames: int
) -> None:
    model = build(tokens=tokens, context=context).eval()
    state = observed_state(model, 2, frames)
    actions = TestChannels().actions(model, 2, 3, 5)
    fast = model.rollout(
        state, actions, want=frozenset({"feat", "visual", "proprio"}), keep_last=True
    )
    slow = rollout_without_cache(model, state, actions)
    assert_close(fast.feat, slow.feat, rtol=0, atol=1e-5)
    assert_close(leaves(fast.last), leaves(slow.last), rtol=0, atol=1e-5)
    assert not fast.approximate


@torch.no_grad()
def test_the_cache_is_exact_while_the_window_grows() -> None:
    for slide in ("exact", "cached"):
        model = build(slide=slide, context=1).eval()
        state, actions = observed_state(model, 1, 1), TestChannels().actions(model, 1, 4, 3)
        fast = model.rollout(state, actions, want=frozenset({"visual"}))
        slow = rollout_without_cache(model, state, actions)
        assert_close(fast.feat["visual"], slow.feat["visual"], rtol=0, atol=1e-5)
        assert not fast.approximate


@torch.no_grad()
def test_sliding_with_the_cache_is_approximate_and_marked_so() -> None:
    model = build(slide="cached", context=1).eval()
    state, actions = observed_state(model, 1, 1), TestChannels().actions(model, 1, 4, 5)
    fast = model.rollout(state, actions, want=frozenset({"visual"}))
    slow = rollout_without_cache(model, state, actions)
    error = (fast.feat["visual"] - slow.feat["visual"]).abs().amax((0, 1, 3, 4))
    assert fast.approximate
    assert (error[:3] < 1e-5).all() and (error[3:] > 1e-4).all()


@torch.no_grad()
def test_rows_with_different_histories_are_imagined_independently() -> None:
    model = build().eval()
    state = observed_state(model, 4, 2)
    check = TestChannels()
    first = torch.tensor([True, False, True, False])
    state = model.observe(state, check.actions(model, 4), check.make_obs(model, 4), first)
    actions = check.actions(model, 4, 2, 4)
    want = frozenset({"feat"})
    batched = model.rollout(state, actions, want=want, keep_last=True)
    for b in range(4):
        row = DinoState(*[x[b : b + 1] for x in state])
        alone = model.rollout(row, actions[b : b + 1], want=want, keep_last=True)
        assert_close(batched.feat["feat"][b : b + 1], alone.feat["feat"], rtol=0, atol=1e-5)
        last_state = DinoState(*[x[2 * b : 2 * b + 2] for x in batched.last])
        assert_close(leaves(last_state), leaves(alone.last), rtol=0, atol=1e-5)


@torch.no_grad()
def test_the_last_step_alone_equals_that_of_the_full_rollout() -> None:
    model = build().eval()
    state, actions = observed_state(model, 2, 2), TestChannels().actions(model, 2, 3, 4)
    full = model.rollout(state, actions, want=frozenset({"visual", "proprio"}))
    last = model.rollout(state, actions, want=frozenset({"visual", "proprio", "last"}))
    for name in ("visual", "proprio"):
        assert last.feat[name].shape[2] == 1
        assert torch.equal(last.feat[name], full.feat[name][:, :, -1:])


@torch.no_grad()
def test_the_filter_keeps_its_context_and_the_actions_in_it() -> None:
    model = build(context=2).eval()
    check = TestChannels()
    state = observed_state(model, 1, 4)
    assert state.length.tolist() == [2]
    expected = torch.stack([model.encode(check.make_obs(model, 1, seed=t)) for t in (2, 3)], 1)
    assert torch.equal(state.observed[:, :2], expected)
    assert torch.equal(state.action[:, 0], check.actions(model, 1, seed=3))
    assert not state.action[:, 1:].any() and not state.observed[:, 2:].any()


def test_proprioception_is_z_scored_and_its_distances_are_kept() -> None:
    embed = build().encoder.proprio
    assert embed is not None and not any(p.requires_grad for p in embed.parameters())
    a, b = (torch.randn(5, 3, generator=seeded(s)) for s in (1, 2))
    std = torch.tensor(EMBODIMENT.proprio_std)
    expected = ((a - b) / std).norm(dim=-1)
    assert_close((embed(a) - embed(b)).norm(dim=-1), (4 / 3) ** 0.5 * expected)


def test_actions_are_z_scored_and_put_side_by_side() -> None:
    adapter = ActionAdapter.between(EMBODIMENT, build().spec)
    actions = torch.tensor([[0.3, 0.9], [-1.0, 1.5]])
    mean, std = torch.tensor(EMBODIMENT.action_mean), torch.tensor(EMBODIMENT.action_std)
    assert_close(adapter.from_robot(actions), ((actions - mean) / std).flatten())


def test_goals_of_an_image_alone() -> None:
    check = TestChannels()
    model = build().eval()
    obs = check.make_obs(model, 2)
    with_proprio, image_only = model.encode_goal(obs), model.encode_goal({"image": obs["image"]})
    assert set(with_proprio) == set(image_only) == {"visual", "proprio", "feat"}
    assert torch.equal(with_proprio["visual"], image_only["visual"])
    without_probe = build(probe=None).eval()
    assert set(without_probe.encode_goal({"image": obs["image"]})) == {"visual"}
    with pytest.raises(ModelError, match="got only image, expected 3 numbers besides the image"):
        model.encode({"image": obs["image"]})


def test_a_robot_without_proprioception() -> None:
    embodiment = replace(EMBODIMENT, proprio_mean=(), proprio_std=())
    for concat_dim in (0, 1):
        model = build(
            embodiment=embodiment, tokens=replace(TINY.model.tokens, concat_dim=concat_dim)
        ).eval()
        state = observed_state(model, 1, 2)
        actions = TestChannels().actions(model, 1, 2, 2)
        rollout = model.rollout(state, actions, want=frozenset({"feat", "visual"}))
        assert set(model.encode_goal(TestChannels().make_obs(model, 1))) == {"feat", "visual"}
        assert rollout.feat["visual"].shape[:3] == (1, 2, 2)
        with pytest.raises(ModelError, match="no readout named proprio"):
            model.rollout(state, actions, want=frozenset({"proprio"}))


def test_gradients_reach_actions_through_a_rollout() -> None:
    model = build().eval()
    actions = TestChannels().actions(model, 1, 2, 4).requires_grad_()
    model.rollout(observed_state(model, 1, 2), actions, want=frozenset({"visual"})).feat[
        "visual"
    ].square().mean().backward()
    assert actions.grad is not None and (actions.grad.abs().amax((0, 1, 3)) > 0).all()


def test_an_untrained_residual_predictor_predicts_no_change() -> None:
    model = build(residual=True).eval()
    state, actions = observed_state(model, 1, 1), TestChannels().actions(model, 1, 2, 3)
    with torch.no_grad():
        predicted = model.rollout(state, actions, want=frozenset({"feat"})).feat["feat"]
    current = model.readout(state, frozenset({"feat"}))["feat"]
    assert_close(predicted, current[:, None, None].expand_as(predicted))


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"context": 4}, "context"), ({"slide": "sometimes"}, "slide"), ({"frameskip": 0}, "frame")],
)
def test_invalid_settings_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        build(**changes)  # type: ignore[arg-type]
