"""The recurrent state-space model: the GRU's laws, resets, and one filter in two forms."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from wm_models.errors import ModelError
from wm_models.nets import rssm as module
from wm_models.nets.rssm import RSSM, RSSMConfig, RSSMState


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def net() -> RSSM:
    torch.manual_seed(0)
    return RSSM(RSSMConfig(deter=12, hidden=10, stoch=3, classes=4, action_pad=5), 2, 7)


def random_state(net: RSSM, batch: int, seed: int = 0) -> RSSMState:
    c, g = net.config, seeded(seed)
    logits = torch.randn(batch, c.stoch, c.classes, generator=g)
    return RSSMState(torch.randn(batch, c.deter, generator=g), net.sample(logits, g).detach())


def test_zeros_stay_zeros_with_zero_biases(net) -> None:
    start = net.initial(2, torch.zeros(1))
    h = net.recur(start, net.project_action(torch.zeros(2, 2)))
    assert not h.any()
    with torch.no_grad():
        net.gru_norm.bias.add_(1.0)
    assert net.recur(start, net.project_action(torch.zeros(2, 2))).all()


def test_gru_equations(net) -> None:
    """Order reset, candidate, update; reset outside the linear map; update gate sigmoid(u - 1)."""
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=seeded(1)))
    state, action = random_state(net, 2), torch.rand(2, 2)
    padded = torch.cat([state.stoch.flatten(1), action, torch.zeros(2, 3)], 1)
    x = net.img_in(padded)
    parts = net.gru_norm(net.gru(torch.cat([x, state.deter], 1)))
    r, c, u = parts.split(12, -1)
    u = torch.sigmoid(u - 1)
    expected = u * torch.tanh(torch.sigmoid(r) * c) + (1 - u) * state.deter
    assert_close(net.recur(state, net.project_action(action)), expected)
    assert net.gru_norm.eps == 1e-3


def test_update_gate_starts_mostly_closed(net) -> None:
    assert_close(torch.sigmoid(torch.tensor(-1.0)), torch.tensor(0.2689), atol=1e-4, rtol=0)
    with torch.no_grad():
        net.gru.weight.zero_()
    state = random_state(net, 2)
    h = net.recur(state, net.project_action(torch.zeros(2, 2)))
    assert_close(h, torch.sigmoid(torch.tensor(1.0)) * state.deter, atol=1e-5, rtol=0)


def test_the_posterior_is_a_network_of_h_and_the_embedding(net) -> None:
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=seeded(1)))
    state, action, embed = random_state(net, 2), torch.rand(2, 1, 2), torch.rand(2, 1, 7)
    posterior, logits = net.observe(state, action, embed, torch.zeros(2, 1).bool(), seeded())
    both = torch.cat([posterior.deter[:, 0], embed[:, 0]], 1)
    expected = net.post_out(F.elu(net.post_in(both))).unflatten(1, (3, 4))
    assert_close(logits[:, 0], expected)


def test_padded_inputs_have_no_influence(net) -> None:
    action = torch.rand(2, 2)
    before = net.project_action(action)
    with torch.no_grad():
        net.img_in.weight[:, -3:] += 1.0
    assert net.project_action(action).equal(before)
    with pytest.raises(ValueError, match=r"action_pad: got 5, expected 0 or at least the 6"):
        RSSM(RSSMConfig(action_pad=5), 6, 7)


def test_activation_after_img_in_is_a_choice() -> None:
    torch.manual_seed(0)
    plain, elu = (RSSM(RSSMConfig(8, 8, 2, 3, 4, act), 2, 5) for act in ("none", "elu"))
    elu.load_state_dict(plain.state_dict())
    state = random_state(plain, 2)
    a = plain.recur(state, plain.project_action(torch.ones(2, 2)))
    assert not torch.allclose(a, elu.recur(state, elu.project_action(torch.ones(2, 2))))


def test_rows_before_is_first_have_no_influence(net) -> None:
    action = torch.rand(2, 6, 2).requires_grad_()
    embed = torch.rand(2, 6, 7).requires_grad_()
    first = torch.zeros(2, 6, dtype=torch.bool)
    first[:, 3] = True
    start = random_state(net, 2)
    start = RSSMState(start.deter.requires_grad_(), start.stoch.requires_grad_())
    states, _ = net.observe(start, action, embed, first, seeded())
    grads = torch.autograd.grad(states.feat[:, 3:].square().sum(), (action, embed, *start))
    assert not grads[0][:, :4].any()  # the action that led to the first row does not count either
    assert not grads[1][:, :3].any() and grads[1][:, 3:].abs().sum() > 0
    assert not grads[2].any() and not grads[3].any()


def test_first_rows_are_fresh_starts(net) -> None:
    first = torch.ones(2, 1, dtype=torch.bool)
    embed = torch.rand(2, 1, 7)
    with_history, _ = net.observe(random_state(net, 2), torch.rand(2, 1, 2), embed, first, seeded())
    fresh, _ = net.observe(net.initial(2, embed), torch.zeros(2, 1, 2), embed, first, seeded())
    assert_close(with_history, fresh)


@pytest.mark.parametrize("batch", [1, 3])
def test_sequence_equals_steps(net, monkeypatch, batch: int) -> None:
    """One call over T rows is T calls of one row. With B = 1 the noise is equal, too."""
    if batch > 1:
        monkeypatch.setattr(module, "gumbel", lambda shape, like, generator: torch.zeros(shape))
    action, embed = torch.rand(batch, 5, 2), torch.rand(batch, 5, 7)
    first = torch.zeros(batch, 5, dtype=torch.bool)
    first[:, 0] = first[-1, 2] = True
    sequence, logits = net.observe(net.initial(batch, embed), action, embed, first, seeded())
    state, generator = net.initial(batch, embed), seeded()
    for t in range(5):
        rows = slice(t, t + 1)
        one, logit = net.observe(state, action[:, rows], embed[:, rows], first[:, rows], generator)
        state = RSSMState(one.deter[:, 0], one.stoch[:, 0])
        assert_close(state.deter, sequence.deter[:, t])
        assert_close(state.stoch, sequence.stoch[:, t])
        assert_close(logit[:, 0], logits[:, t])


def test_the_prior_needs_no_image(net) -> None:
    state, action = random_state(net, 2), torch.rand(2, 2)
    imagined = net.imagine(state, action, seeded())
    posterior, _ = net.observe(
        state, action[:, None], torch.rand(2, 1, 7), torch.zeros(2, 1).bool(), seeded()
    )
    assert_close(imagined.deter, posterior.deter[:, 0])  # h does not depend on the current image
    assert imagined.stoch.shape == (2, 3, 4)


def test_packed_states_are_restored(net) -> None:
    state = random_state(net, 3)
    flat = net.pack(state)
    assert flat.shape == (3, net.config.feat)
    assert_close(net.unpack(flat), state)
    for size in (23, 25):
        with pytest.raises(ValueError, match=f"got {size} numbers, expected 24 for this preset"):
            net.unpack(torch.zeros(3, size))


LAYERED = RSSMConfig(
    deter=12,
    hidden=10,
    stoch=3,
    classes=4,
    action_pad=0,
    img_in_act="silu",
    act="silu",
    norm="layer",
    unimix=0.01,
    initial="learned",
    init="truncated_normal",
)


def test_dreamer_v3s_layers_are_linear_norm_activation_without_bias() -> None:
    torch.manual_seed(0)
    net = RSSM(LAYERED, 2, 7)
    state, action, embed = random_state(net, 2), torch.rand(2, 1, 2), torch.rand(2, 1, 7)
    x = torch.cat([state.stoch.flatten(1), action[:, 0]], 1)
    x = F.silu(net.img_in_norm(F.linear(x, net.img_in.weight)))
    r, c, u = net.gru_norm(F.linear(torch.cat([x, state.deter], 1), net.gru.weight)).split(12, -1)
    u = torch.sigmoid(u - 1)
    deter = u * torch.tanh(torch.sigmoid(r) * c) + (1 - u) * state.deter
    states, logits = net.observe(state, action, embed, torch.zeros(2, 1).bool(), seeded())
    assert_close(states.deter[:, 0], deter)
    both = torch.cat([deter, embed[:, 0]], 1)
    raw = net.post_out(F.silu(net.post_norm(F.linear(both, net.post_in.weight))))
    probs = raw.unflatten(1, (3, 4)).softmax(-1)
    assert_close(logits[:, 0].softmax(-1), 0.99 * probs + 0.01 / 4)
    assert net.img_in.bias is net.gru.bias is net.post_in.bias is None
    assert net.prior[0].bias is None and net.prior[-1].bias is not None


def test_a_learned_start_replaces_the_state_of_every_first_row() -> None:
    torch.manual_seed(0)
    net = RSSM(LAYERED, 2, 7)
    with torch.no_grad():
        net.deter_0.copy_(torch.randn(12, generator=seeded(3)))
    start = net.initial(2, torch.zeros(1))
    assert_close(start.deter, torch.tanh(net.deter_0).expand(2, -1))
    assert start.stoch.argmax(-1).equal(net.prior_logits(start.deter).argmax(-1))
    args = torch.rand(2, 3, 2), torch.rand(2, 3, 7)
    first = torch.tensor([[True, False, True], [False, True, False]])
    mixed, _ = net.observe(random_state(net, 2), *args, first, seeded())
    action = torch.where(first[..., None], 0.0, args[0])
    deter = net.recur(start, net.project_action(action[:, 2]))
    assert_close(mixed.deter[0, 2], deter[0])
    grad = torch.autograd.grad(mixed.deter[1, 2].sum(), net.deter_0, retain_graph=True)[0]
    assert grad.any()  # the start is learned through what follows


def test_batch_norm_stands_in_the_posterior_alone() -> None:
    torch.manual_seed(0)
    net = RSSM(RSSMConfig(12, 10, 3, 4, 0, norm="layer", posterior_norm="batch"), 2, 7)
    norms = [m for m in net.modules() if isinstance(m, torch.nn.BatchNorm1d)]
    assert norms == [net.post_norm]
    args = torch.rand(6, 2, 2), torch.rand(6, 2, 7), torch.zeros(6, 2).bool()
    net.train().observe(random_state(net, 6), *args, seeded())
    assert net.post_norm.num_batches_tracked == 2  # a batch of rows at each step
    before = net.post_norm.running_mean.clone()
    net.eval().observe(random_state(net, 6), *args, seeded())
    assert net.post_norm.running_mean.equal(before)


def test_actions_without_padding_have_inputs_of_their_own() -> None:
    net = RSSM(RSSMConfig(8, 8, 2, 3, 0), 56, 5)
    assert net.img_in.in_features == 2 * 3 + 56


@pytest.mark.parametrize(
    "wrong",
    [{"act": "gelu2"}, {"norm": "batch"}, {"unimix": 1.5}, {"initial": "ones"}, {"init": "he"}],
)
def test_layers_are_checked(wrong: dict[str, object]) -> None:
    with pytest.raises(ModelError, match=next(iter(wrong))):
        RSSMConfig(**wrong)
