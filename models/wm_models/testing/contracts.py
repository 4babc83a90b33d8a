"""The laws of the model and planner contracts as test suites (needs pytest).

A new model is tested by:

    class TestMine(WorldModelContract):
        def make_model(self) -> WorldModel:
            return Mine(...)

and a new planner by subclassing :class:`PlannerContract` in the same way.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close
from torch.utils._pytree import tree_leaves, tree_map

from wm_models.errors import ModelError
from wm_models.interface.noise import RowGenerators
from wm_models.interface.planner import Planner, PlanState
from wm_models.interface.state import State, detach, expand, index, to
from wm_models.interface.world_model import WorldModel
from wm_models.planners import ReturnCost
from wm_models.testing.linear_model import LinearModel

SIZES = [(1, 1, 1), (1, 5, 4), (3, 1, 4), (3, 5, 1)]  # B, S, H


def leaves(tree: object) -> list[Tensor]:
    """The tensors of a pytree, in order."""
    return [x for x in tree_leaves(tree) if isinstance(x, Tensor)]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class WorldModelContract:
    """Mixin for pytest classes: what planners, nodes and learners expect of every model."""

    def make_model(self) -> WorldModel:
        """Return the model, with weights drawn from a fixed seed."""
        raise NotImplementedError

    def training(self, model: WorldModel) -> Callable[[], float] | None:
        """A function that makes one update on a fixed small batch and returns its loss."""
        return None

    def make_obs(self, model: WorldModel, batch: int, seed: int = 0) -> dict[str, Tensor]:
        """Observations drawn from 0..1; override where a model wants something else."""
        return {
            name: torch.rand(batch, *shape, generator=seeded(seed))
            for name, shape in model.spec.obs_keys.items()
        }

    # tools ----------------------------------------------------------------------------------

    @pytest.fixture
    def model(self) -> WorldModel:
        return self.make_model().eval()

    def actions(self, model: WorldModel, *lead: int, seed: int = 1) -> Tensor:
        low, high = model.spec.bounds(torch.zeros(()))
        shape = (*lead, model.spec.action_dim)
        return low + (high - low) * torch.rand(shape, generator=seeded(seed))

    def lived(self, model: WorldModel, batch: int) -> State:
        """A state with some past."""
        state = model.initial(batch)
        for t in range(2):
            state = model.observe(
                state,
                self.actions(model, batch, seed=t),
                self.make_obs(model, batch, seed=t),
                torch.full((batch,), t == 0),
                generator=seeded(t),
            )
        return detach(state)

    def want(self, model: WorldModel) -> frozenset[str]:
        spec = model.spec
        able = {"reward": spec.has_reward, "value": spec.has_value, "cont": spec.has_continue}
        return frozenset({"feat", *(name for name, yes in able.items() if yes)})

    # laws -----------------------------------------------------------------------------------

    def test_spec_is_complete(self, model: WorldModel) -> None:
        spec = model.spec
        assert spec.action_dim == len(spec.action_high) >= 1
        assert all(a < b for a, b in zip(spec.action_low, spec.action_high, strict=True))
        assert spec.obs_keys
        assert spec.frameskip >= 1
        assert spec.action_dim % spec.frameskip == 0

    @pytest.mark.parametrize("batch", [1, 3])
    def test_states_keep_their_shapes(self, model: WorldModel, batch: int) -> None:
        start = model.initial(batch)
        assert all(x.shape[0] == batch for x in leaves(start))
        shapes = [x.shape for x in leaves(start)]
        assert shapes
        filtered = self.lived(model, batch)
        assert [x.shape for x in leaves(filtered)] == shapes
        stepped = model.step(filtered, self.actions(model, batch), generator=seeded())
        assert [x.shape for x in leaves(stepped)] == shapes

    def test_observe_is_filter_of_encode(self, model: WorldModel) -> None:
        state, obs, action = self.lived(model, 3), self.make_obs(model, 3), self.actions(model, 3)
        first = torch.tensor([False, True, False])
        observed = model.observe(state, action, obs, first, generator=seeded())
        features = model.encode(obs)
        assert features.ndim == 3 and features.shape[0] == 3
        assert_close(model.filter(state, action, features, first, generator=seeded()), observed)

    def test_is_first_forgets_everything_before(self, model: WorldModel) -> None:
        obs, action = self.make_obs(model, 3), self.actions(model, 3)
        fresh = model.observe(
            model.initial(3),
            torch.zeros_like(action),
            obs,
            torch.ones(3).bool(),
            generator=seeded(),
        )
        first = torch.tensor([True, False, True])
        mixed = model.observe(self.lived(model, 3), action, obs, first, generator=seeded())
        assert_close(index(mixed, first), index(fresh, first))

    @pytest.mark.parametrize(("batch", "samples", "horizon"), SIZES)
    def test_rollout_is_the_expanded_step_loop(
        self, model: WorldModel, batch: int, samples: int, horizon: int
    ) -> None:
        state = self.lived(model, batch)
        actions = self.actions(model, batch, samples, horizon)
        want = self.want(model)
        with torch.inference_mode():
            got = model.rollout(state, actions, want=want, keep_last=True, generator=seeded())
            plain = WorldModel.rollout(
                model, state, actions, want=want, keep_last=True, generator=seeded()
            )
            last, generator = expand(state, samples), seeded()
            for t in range(horizon):
                last = model.step(last, actions.flatten(0, 1)[:, t], generator=generator)
                model.readout(last, want - {"value"}, generator=generator)
        assert got.feat["feat"].shape[:3] == (batch, samples, horizon)
        for name, shape in {
            "reward": (batch, samples, horizon),
            "cont": (batch, samples, horizon),
            "value": (batch, samples),
        }.items():
            value = getattr(got, name)
            assert value is None if name not in want else value.shape == shape
        assert_close(leaves(vars(got)), leaves(vars(plain)), rtol=1e-4, atol=1e-5)
        assert_close(leaves(got.last), leaves(last), rtol=1e-4, atol=1e-5)

    def test_rollout_in_chunks_has_the_same_shapes(self, model: WorldModel) -> None:
        state, actions, want = self.lived(model, 2), self.actions(model, 2, 5, 3), self.want(model)
        whole = model.rollout(state, actions, want=want, keep_last=True, generator=seeded())
        parts = model.rollout(
            state, actions, want=want, keep_last=True, chunk=2, generator=seeded()
        )
        shapes = [x.shape for x in leaves(vars(whole))]
        assert [x.shape for x in leaves(vars(parts))] == shapes
        if not model.spec.stochastic:
            assert_close(leaves(vars(parts)), leaves(vars(whole)))

    def test_equal_generators_give_equal_results(self, model: WorldModel) -> None:
        def run() -> list[Tensor]:
            state = self.lived(model, 2)
            rolled = model.rollout(
                state, self.actions(model, 2, 3, 3), want=self.want(model), generator=seeded(7)
            )
            acted = []
            if model.spec.has_actor:
                acted = [model.act(state, mode=False, generator=seeded(3))]
            return [*leaves(vars(rolled)), *acted]

        assert all(torch.equal(a, b) for a, b in zip(run(), run(), strict=True))

    def test_a_row_does_not_depend_on_the_other_rows(self, model: WorldModel) -> None:
        state, obs, action = self.lived(model, 3), self.make_obs(model, 3), self.actions(model, 3)
        first = torch.tensor([False, True, False])

        def filtered(rows: slice) -> list[Tensor]:
            noise = [seeded(row) for row in range(3)[rows]]
            features = model.encode({name: each[rows] for name, each in obs.items()})
            one = index(state, rows)
            one = model.filter(
                one, action[rows], features, first[rows], generator=RowGenerators(noise)
            )
            acted = []
            if model.spec.has_actor:
                acted = [model.act(one, mode=False, generator=RowGenerators(noise))]
            return [*leaves(one), *acted]

        with torch.inference_mode():
            together = filtered(slice(0, 3))
            for row in range(3):
                alone = filtered(slice(row, row + 1))
                same = [each[row : row + 1] for each in together]
                assert_close(alone, same, rtol=1e-4, atol=1e-5)

    def test_states_can_be_moved_selected_and_packed(self, model: WorldModel) -> None:
        state = self.lived(model, 3)
        for same in (
            to(detach(state), "cpu"),
            index(expand(state, 4), slice(None, None, 4)),
            model.unpack(model.pack(state)),
        ):
            assert_close(leaves(same), leaves(state), rtol=0, atol=0)
        assert model.pack(state).shape[0] == 3 and model.pack(state).ndim == 2

    def test_spec_matches_what_the_model_can_do(self, model: WorldModel) -> None:
        state, spec = self.lived(model, 2), model.spec
        if spec.has_actor:
            low, high = spec.bounds(torch.zeros(()))
            for mode in (True, False):
                action = model.act(state, mode=mode, generator=seeded())
                assert action.shape == (2, spec.action_dim)
                assert bool((action >= low).all() and (action <= high).all())
        if spec.has_decoder:
            images = model.decode(state)
            assert images.keys() == set(spec.image_keys)
            for image in map(Tensor.detach, images.values()):
                assert image.shape[:2] == (2, 3)
                assert float(image.min()) >= 0.0 and float(image.max()) <= 1.0
        if spec.has_goal:
            goal = model.encode_goal(self.make_obs(model, 2))
            assert goal and all(x.shape[0] == 2 for x in goal.values())
        lacking: dict[str, tuple[bool, Callable[[], object]]] = {
            "actor": (spec.has_actor, lambda: model.act(state, mode=True)),
            "decoder": (spec.has_decoder, lambda: model.decode(state)),
            "goal": (spec.has_goal, lambda: model.encode_goal({})),
            "reward": (spec.has_reward, lambda: self._ask(model, state, "reward")),
            "value": (spec.has_value, lambda: self._ask(model, state, "value")),
            "continue": (spec.has_continue, lambda: self._ask(model, state, "cont")),
            "disagreement": (
                spec.has_disagreement,
                lambda: self._ask(model, state, "disagreement"),
            ),
            "unheard of": (False, lambda: self._ask(model, state, "unheard of")),
        }
        for able, ask in lacking.values():
            if not able:
                with pytest.raises(ModelError):
                    ask()

    def _ask(self, model: WorldModel, state: State, name: str) -> None:
        model.rollout(state, self.actions(model, 2, 1, 1), want=frozenset({name}))

    def test_named_modules_hold_every_weight_once(self, model: WorldModel) -> None:
        named = [p for m in model.modules_by_name().values() for p in m.parameters()]
        assert len({id(p) for p in named}) == len(named)
        assert {id(p) for p in named} == {id(p) for p in model.parameters()}

    def test_the_spec_names_modules_that_exist(self, model: WorldModel) -> None:
        names = model.modules_by_name()
        assert model.spec.encoder_module in names and model.spec.state_module in names

    def test_weights_travel(self, model: WorldModel) -> None:
        other = copy.deepcopy(model)
        for value in other.state_dict().values():  # they share the memory of weights and buffers
            value.add_(1)
        for name, module in other.modules_by_name().items():
            module.load_state_dict(model.modules_by_name()[name].state_dict())
        assert_close(other.state_dict(), model.state_dict(), rtol=0, atol=0)
        mine, theirs = (self.lived(m, 2) for m in (model, other))
        assert_close(leaves(theirs), leaves(mine), rtol=0, atol=0)

    def test_training_lowers_the_loss(self, model: WorldModel) -> None:
        update = self.training(model)
        if update is None:
            pytest.skip("this model has no learner here")
        losses = [update() for _ in range(40)]
        assert sum(losses[-5:]) < 0.9 * sum(losses[:5])


class PlannerContract:
    """Mixin for pytest classes: a planner is a function of its arguments, and heeds the box."""

    needs_actor = False

    def make_planner(self) -> Planner:
        raise NotImplementedError

    def make_model(self) -> WorldModel:
        """A model that the planner can run on; by default two dimensions steered directly."""
        return LinearModel(torch.eye(2), 0.3 * torch.eye(2), torch.tensor([2.0, -0.5]))

    @pytest.fixture
    def planner(self) -> Planner:
        return self.make_planner()

    @pytest.fixture
    def model(self) -> WorldModel:
        return self.make_model().eval()

    def cost(self, model: WorldModel) -> ReturnCost:
        return ReturnCost(use_value=model.spec.has_value)

    def states(self, model: WorldModel, batch: int) -> State:
        """Different states for different rows."""
        state = model.initial(batch)
        return tree_map(
            lambda x: x + 0.1 * torch.arange(batch).reshape(-1, *[1] * (x.ndim - 1)), state
        )

    @pytest.mark.parametrize("batch", [1, 3])
    def test_plan_lies_in_the_box(self, planner: Planner, model: WorldModel, batch: int) -> None:
        actions, warm, _ = planner.plan(
            model, self.states(model, batch), self.cost(model), generator=seeded()
        )
        low, high = model.spec.bounds(actions)
        assert actions.shape == (batch, planner.horizon, model.spec.action_dim)
        assert bool((actions >= low).all() and (actions <= high).all())
        assert warm.mean.shape[0] == batch and warm.mean.shape[2] == model.spec.action_dim
        assert not actions.requires_grad

    def test_equal_generators_give_equal_plans(self, planner: Planner, model: WorldModel) -> None:
        def run(seed: int) -> tuple[Tensor, PlanState]:
            warm = None
            for _ in range(2):  # with and without a warm start
                actions, warm, _ = planner.plan(
                    model,
                    self.states(model, 2),
                    self.cost(model),
                    warm=warm,
                    generator=seeded(seed),
                )
            assert warm is not None
            return actions, warm

        (a, warm_a), (b, warm_b) = run(0), run(0)
        assert torch.equal(a, b) and torch.equal(warm_a.mean, warm_b.mean)

    def test_arguments_are_left_alone(self, planner: Planner, model: WorldModel) -> None:
        state = self.states(model, 2)
        before = tree_map(torch.clone, state)
        _, warm, _ = planner.plan(model, state, self.cost(model), generator=seeded())
        mean = warm.mean.clone()
        planner.plan(model, state, self.cost(model), warm=warm, generator=seeded())
        assert_close(leaves(state), leaves(before), rtol=0, atol=0)
        assert torch.equal(warm.mean, mean)

    def test_a_spent_budget_still_gives_a_plan(self, planner: Planner, model: WorldModel) -> None:
        actions, _, info = planner.plan(
            model, self.states(model, 1), self.cost(model), budget_s=0.0, generator=seeded()
        )
        assert actions.shape == (1, planner.horizon, model.spec.action_dim)
        assert bool(torch.isfinite(actions).all())
        assert int(info.get("iterations", torch.tensor(1))) <= 1
