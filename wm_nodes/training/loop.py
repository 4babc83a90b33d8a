"""Train from a replay log: sample, update, publish weights, resume. The trainer node and `wm train`
are thin wrappers around :class:`Trainer`."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from wm_models.interface.learner import Learner, LearnsFromReturns
from wm_models.interface.world_model import WorldModel
from wm_models.registry import preset
from wm_models.weights.manifest import Manifest
from wm_nodes.agent.device import pick_device
from wm_nodes.evaluation.held_out import HeldOut, evaluate_held_out
from wm_nodes.training.checkpoint import Checkpoints
from wm_nodes.training.config import TrainingConfig, TrainingError
from wm_nodes.training.logs import TrainingLogs
from wm_nodes.training.metrics import MetricsRecorder, Speed
from wm_nodes.training.pacing import AgentSteps, Pacing
from wm_nodes.training.setup import Setup, build_setup

ROLLBACKS = 3  # returns to the last checkpoint before training ends with an error


@dataclass(frozen=True)
class TrainingProgress:
    """Where training stands."""

    updates: int
    agent_steps: int
    phase: str  # waiting, autoencoder, world_model, behaviour, done
    updates_per_s: float
    version: int | None
    metrics: Mapping[str, float]
    rollbacks: int


class Trainer:
    """Train as the log grows. Call :meth:`step` repeatedly; :meth:`close` saves.

    One thread calls the methods; :attr:`progress`, :meth:`covered_steps_of` and :attr:`done` may
    be used by others.
    """

    def __init__(
        self,
        config: TrainingConfig,
        publish: Callable[[Manifest, Path], None] | None = None,
        evaluate: Callable[[Path], Mapping[str, float]] | None = None,
        on_first_save: Callable[[], None] | None = None,
    ) -> None:
        """`publish` is called with every version; `evaluate` gets the folder of one each
        `eval_every` updates, and returns metrics; `on_first_save` is called once, before the first
        save of this process."""
        self.config = config
        self.device = str(pick_device(config.device))
        self.pacing = Pacing(preset(config.model).varied(config.settings).pace, config.pace)
        self.checkpoints = Checkpoints(config.run, config.keep, on_first_save)
        self.logs = TrainingLogs(config)
        self.metrics: Mapping[str, float] = {}  # of the newest update
        self.evaluation: Mapping[str, float] = {}  # the newest
        self.rollbacks = 0
        self._agent_steps = AgentSteps(config.environments)
        self._setup: Setup | None = None
        self._publish = publish or (lambda manifest, path: None)
        self._evaluate_weights = evaluate
        self._recorder = MetricsRecorder(config.run / "metrics", config.log_every)
        self._speed = Speed()
        self._published_at = time.monotonic()

    @property
    def setup(self) -> Setup:
        """Model, learner and batches. TrainingError: the logs do not hold enough rows yet."""
        if self._setup is None:
            raise TrainingError(
                f"run {self.config.run.name}: got too few rows in its logs, expected enough for an "
                "update. Call step() until it returns True."
            )
        return self._setup

    @property
    def model(self) -> WorldModel:
        return self.setup.model

    @property
    def learner(self) -> Learner:
        return self.setup.learner

    @property
    def progress(self) -> TrainingProgress:
        """Where training stands, without access to the log."""
        return TrainingProgress(
            updates=self._updates,
            agent_steps=self._agent_steps.newest,
            phase=self._phase(),
            updates_per_s=self._speed.rate,
            version=self.checkpoints.version,
            metrics=self.metrics,
            rollbacks=self.rollbacks,
        )

    @property
    def covered_steps(self) -> int:
        """Agent steps that the updates so far are enough for, by the preset's ratio."""
        return self.pacing.covered(self._updates)

    def covered_steps_of(self, environment: int) -> int:
        """Return the agent steps of an environment that the updates so far are enough for, beside
        those that the other environments have made."""
        steps = self._agent_steps
        others = steps.newest - steps.of(environment)
        return max(0, self.covered_steps - others)

    @property
    def done(self) -> bool:
        return bool(self.config.steps) and self._updates >= self.config.steps

    def step(self) -> bool:
        """Make one update if one is due; False when the log must grow first, or all is done."""
        setup = self._setup or self._open()
        if setup is None or self.done or not self._is_due():
            return False
        learner = setup.learner
        try:
            batches = setup.batches.draw(learner.batch_specs)
            if isinstance(learner, LearnsFromReturns) and (ended := setup.returns.new()):
                learner.episodes_ended(ended)
            self.metrics = learner.update(batches)
        except FloatingPointError as error:
            self._roll_back(setup, error)
            return True
        self._speed.tick()
        self._recorder.add(learner.updates, self.metrics)
        if self.config.eval_every and learner.updates % self.config.eval_every == 0:
            self._evaluate(setup)
        if learner.updates >= learner.initial_updates and self._is_publish_due(learner):
            self.save()
        return True

    def save(self) -> None:
        """Publish the weights as a new version, and write what is needed to resume exactly."""
        if self._setup is not None and self._setup.learner.updates:
            self._write_state(self._setup, self._save_weights(self._setup))

    def close(self) -> None:
        """Save what is not saved yet, and close the metrics."""
        if self._setup is not None and self._setup.learner.updates != self.checkpoints.updates:
            self.save()
        self._recorder.close()

    # Start and resume --------------------------------------------------------------------------

    def _open(self) -> Setup | None:
        """Build the parts once the logs exist and hold the prefill."""
        if not self.logs.open(self.config.model):
            return None
        resumed = self.checkpoints.exists()
        if self._count_agent_steps() < self.pacing.prefill(resumed):
            if not self.config.pace:
                self.logs.require_training_episodes(slice(self.config.environments))
            return None
        self.logs.require_training_episodes(slice(self.config.environments, None))
        if self.config.eval_every and self.config.hold_out:
            self.logs.require_held_out()
        resume_from = self.checkpoints.weights_folder() if resumed else None
        setup = build_setup(self.config, self.logs, resume_from, self.device)
        self.pacing.pace = setup.preset.pace  # settings of resumed weights included
        if resumed:
            self._load(setup)
        else:
            self._recorder.resume(0, {})  # rows of a run that was killed before its first save
            if self.config.weights is not None:
                setup.load_pretrained(self.config.weights)
        self._setup = setup  # last: other threads read the progress
        return setup

    def _load(self, setup: Setup) -> None:
        """Continue from the newest checkpoint."""
        manifest, state = self.checkpoints.load(
            setup.model.modules_by_name(), setup.preset.name, self.device
        )
        setup.take_pretrained(manifest)
        learner = setup.learner
        learner.load_state_dict(state["learner"])
        same_logs = state.get("logs", self.logs.places) == self.logs.places
        if same_logs:
            setup.returns.load_state_dict(state)
            setup.batches.load_state_dict(state["sampler"])
        if same_logs and self.pacing.can_load(state):
            self.pacing.load_state_dict(state)
            if self._setup is None:  # after a roll-back the newer count of the same log holds
                self._agent_steps.load_state_dict(state)
        else:
            alone = len(self.logs.readers) == self.config.environments
            self.pacing.restart(learner.updates, self._agent_steps.newest, alone=alone)
        self._recorder.resume(learner.updates, state.get("metrics", {}))
        if learner.updates >= learner.initial_updates:
            self._publish(manifest, self.checkpoints.store.path(manifest.version))

    def _roll_back(self, setup: Setup, error: FloatingPointError) -> None:
        """Return to the last checkpoint; without one, or after ROLLBACKS returns, give up."""
        self.rollbacks += 1
        if not self.checkpoints.exists() or self.rollbacks > ROLLBACKS:
            raise TrainingError(
                f"training diverged at update {setup.learner.updates}: {error} "
                "Lower the learning rates, or look at the log for outliers (wm log info)."
            ) from error
        self._load(setup)

    # Save and evaluate --------------------------------------------------------------------------

    def _save_weights(self, setup: Setup) -> Manifest:
        return self.checkpoints.save_weights(
            setup.model.modules_by_name(),
            metrics=self.metrics,
            source_log=Path(self.config.logs[0][0]).name,
            **setup.manifest_entries(self.logs),
        )

    def _write_state(self, setup: Setup, manifest: Manifest) -> None:
        """Make a version of weights the one to resume from, and publish it."""
        state = {
            "learner": setup.learner.state_dict(),
            "sampler": setup.batches.state_dict(),
            "logs": self.logs.places,
            **setup.returns.state_dict(),
            "metrics": self._recorder.state_dict(),
            **self.pacing.state_dict(),
            **self._agent_steps.state_dict(),
        }
        self.checkpoints.write_state(manifest, state)
        self._published_at = time.monotonic()
        if setup.learner.updates >= setup.learner.initial_updates:
            self._publish(manifest, self.checkpoints.store.path(manifest.version))

    def _evaluate(self, setup: Setup) -> None:
        """Evaluate the model with random numbers of its own: training's are left alone."""
        figures: dict[str, float] = {}
        if self.config.hold_out:
            held_out = HeldOut(self.config.hold_out)
            figures |= evaluate_held_out(
                setup.model, self.logs.readers, setup.cameras, held_out, seed=self.config.seed
            )
        manifest = None
        if self._evaluate_weights is not None:
            manifest = self._save_weights(setup)
            figures |= self._evaluate_weights(self.checkpoints.store.path(manifest.version))
        self.evaluation = figures
        self._recorder.write(setup.learner.updates, figures)
        if manifest is not None:  # only now: a kill before would have lost the figures
            self._write_state(setup, manifest)

    # When ---------------------------------------------------------------------------------------

    @property
    def _updates(self) -> int:
        return self._setup.learner.updates if self._setup is not None else 0

    def _count_agent_steps(self) -> int:
        return self._agent_steps.update(self.logs.readers[: self.config.environments])

    def _is_due(self) -> bool:
        """Is an update due? The log is read only where the ratio is kept."""
        if not self.pacing.enabled:
            return True
        return self.pacing.is_due(self._updates, self._count_agent_steps())

    def _is_publish_due(self, learner: Learner) -> bool:
        first = learner.updates == learner.initial_updates
        return first or time.monotonic() - self._published_at >= self.config.publish_s

    def _phase(self) -> str:
        if self._setup is None:
            return "waiting"
        return "done" if self.done else self._setup.learner.phase
