"""Shows a run: a progress line, CSV files, TensorBoard, and a summary at its end."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray

from wm_datasets.spec import LogSpec
from wm_nodes.csv_table import Table
from wm_nodes.episodes.episode_stats import EpisodeStats, EpisodeTracker
from wm_nodes.evaluation.evaluate import wilson
from wm_nodes.nodes.run_reports import RunReports, total
from wm_nodes.records import Step
from wm_nodes.robots.environments import environment_logs, namespace
from wm_nodes.ros import messages, spin, topics
from wm_nodes.ros.diagnostics import statuses
from wm_nodes.ros.node import ManagedNode, NodeParams
from wm_nodes.ros.parameters import param
from wm_nodes.training.board import Board

RECENT = 20  # newest episodes, for means
SETTLE_S = 1.5  # after the robot's end, for the recorder's last rows


@dataclass(frozen=True)
class MonitorParams(NodeParams):
    run: str = param("", "Folder of the run, for metrics/ and report/; empty: write nothing.")
    log: str = param("", "Replay log for the report; empty: the run's own.")
    weights: str = param(
        "", "Weights for the predictions in the report; empty: the newest of the run."
    )
    envs: int = param(
        1, "Number of environments; of several, the nodes are in env_0, env_1, ...", low=1, high=64
    )
    report: bool = param(False, "Write a report when the run is over.")
    every_s: float = param(5.0, "Time between progress lines [s].", low=0.1)
    wait_for: str = param(
        "robot", "Node whose end is the end of the run.", choices=("robot", "trainer")
    )


class MonitorNode(ManagedNode[MonitorParams]):
    """Only subscribes; no other node depends on it."""

    NAME = "monitor"

    def configure(self) -> None:
        p = self.params
        self._places = [namespace(number, p.envs) for number in range(p.envs)]
        self._trackers = [EpisodeTracker() for _ in self._places]
        self._reports = RunReports(self.get_namespace(), self._places)
        self._train: list[EpisodeStats] = []
        self._evals: list[EpisodeStats] = []
        self._block: list[EpisodeStats] = []
        self._done_at: float | None = None
        self._reporting: threading.Thread | None = None
        self._line = ""
        folder = Path(p.run) / "metrics" if p.run else None
        self._episodes = Table(folder / "episodes.csv") if folder else None
        self._evaluations = Table(folder / "evaluations.csv") if folder else None
        self._board = Board(folder / "tensorboard") if folder else None
        self._scored = True  # does the task report success?
        for number, place in enumerate(self._places):
            on_step = partial(self._on_step, number)
            self.listen(topics.SPEC.below(place), messages.spec_from_msg, self._on_spec)
            self.listen(topics.STEPS.below(place), messages.step_from_msg, on_step)
        self.listen(topics.DIAGNOSTICS, lambda msg: msg, self._on_diagnostics)

    def activate(self) -> None:
        self.diagnostics.ready = True
        self._timers_ = [
            self.create_timer(self.params.every_s, self._show),
            self.create_timer(0.2, self._check),
        ]

    def deactivate(self) -> None:
        for timer in self._timers_:
            self.destroy_timer(timer)
        self._show()

    def cleanup(self) -> None:
        board = getattr(self, "_board", None)
        if board is not None:
            board.close()

    # Input --------------------------------------------------------------------------------------

    def _on_spec(self, spec: LogSpec) -> None:
        self._scored = spec.success

    def _on_diagnostics(self, msg: DiagnosticArray) -> None:
        self._reports.update(statuses(msg))
        if self._done_at is None and self._reports.is_done(self.params.wait_for):
            self._done_at = time.monotonic()

    def _on_step(self, number: int, step: Step) -> None:
        episode = self._trackers[number].step(step)
        if number == 0 and step.is_first and step.explore:  # only environment 0 is evaluated
            self._close_block()
        if episode is not None:
            (self._train if episode.explore else self._evals).append(episode)
            self._keep(number, episode)

    def _keep(self, number: int, episode: EpisodeStats) -> None:
        steps = self._steps()
        kind = "train" if episode.explore else "eval"
        if not episode.explore:
            self._block.append(episode)
        if self._episodes is not None:
            self._episodes.add({
                "time": round(time.time(), 1),
                "kind": kind,
                "steps": steps,
                "length": episode.length,
                "return": round(episode.total_reward, 4),
                "success": int(episode.success) if self._scored else "",
                "first_success": episode.first_success,
                "weights": episode.weights,
                **({"env": number} if len(self._places) > 1 else {}),
            })  # fmt: skip
        if self._board is not None:
            values = {"return": episode.total_reward}
            if self._scored:
                values["success"] = float(episode.success)
            self._board.add(steps, {f"episode/{k}_{kind}": v for k, v in values.items()})

    def _close_block(self) -> None:
        """Print and store the result of a finished block of evaluation."""
        block, self._block = self._block, []
        if not block:
            return
        wins, count, steps = sum(e.success for e in block), len(block), self._steps()
        low, high = wilson(wins, count)
        mean = fmean(e.total_reward for e in block)
        success = f"success {wins / count:.2f} [{low:.2f}, {high:.2f}], "
        print(
            f"evaluation at {steps} steps: {success if self._scored else ''}"
            f"return {mean:.0f}, {count} episodes, weights {block[-1].weights}",
            flush=True,
        )
        if self._evaluations is not None:
            self._evaluations.add({
                "time": round(time.time(), 1),
                "steps": steps,
                "updates": self._reports.fact("trainer", "updates", "0"),
                "episodes": count,
                "success": round(wins / count, 4) if self._scored else "",
                "low": round(low, 4) if self._scored else "",
                "high": round(high, 4) if self._scored else "",
                "return": round(mean, 4),
                "weights": block[-1].weights,
            })  # fmt: skip
        if self._board is not None:
            values = {"evaluation/return": mean}
            if self._scored:
                values["evaluation/success"] = wins / count
            self._board.add(steps, values)

    # Output -------------------------------------------------------------------------------------

    def _robots(self) -> list[dict[str, str]]:
        return self._reports.of_environments("robot")

    def _steps(self) -> int:
        return total(self._robots(), "steps")

    def _show(self) -> None:
        """Print one line of progress and write it to TensorBoard."""
        parts = [*self._robot_parts(), *self._trainer_parts(), *self._recorder_parts()]
        parts += [f"{name} silent" for name in self._reports.silent()]
        line = " | ".join(parts)
        if line and line != self._line:
            print(line, flush=True)
            self._line = line
        if self._board is not None and self._robots():
            self._board.add(
                self._steps(), {f"robot/{n}": x for n, x in self._reports.speed().items()}
            )
            self._board.flush()

    def _robot_parts(self) -> list[str]:
        robots = self._robots()
        if not robots:
            return []
        recent = (self._train or self._evals)[-RECENT:]
        parts = [f"{self._steps()} steps, {total(robots, 'episodes')} episodes"]
        if recent:
            mean = fmean(e.total_reward for e in recent)
            success = f", success {fmean(e.success for e in recent):.2f}"
            parts.append(f"return {mean:.0f}{success if self._scored else ''}")
        speed = self._reports.speed()
        parts.append(
            f"{speed['rate_hz']:.0f}/s, latency {speed['latency_p50_ms']:.1f}"
            f"/{speed['latency_p99_ms']:.1f} ms"
        )
        return parts

    def _trainer_parts(self) -> list[str]:
        trainer = self._reports.nodes.get("trainer")
        if trainer is None or "updates" not in trainer:
            return []
        return [
            f"{trainer['updates']} updates, {trainer['updates_per_s']}/s, {trainer['phase']}, "
            f"weights {trainer['weights']}"
        ]

    def _recorder_parts(self) -> list[str]:
        reports = self._reports.of_environments("recorder")
        recorders = [report for report in reports if "rows" in report]
        if not recorders:
            return []
        megabytes = round(sum(float(report["log_mb"]) for report in recorders), 1)
        return [f"log {total(recorders, 'rows')} rows, {megabytes} MB"]

    # The end ------------------------------------------------------------------------------------

    def _check(self) -> None:
        """When the run is over and its last rows are recorded: summary, report, end."""
        if self._done_at is None or time.monotonic() - self._done_at < SETTLE_S:
            return
        if self._reporting is None:
            self._close_block()
            self._reporting = threading.Thread(target=self._finish_run, daemon=True)
            self._reporting.start()
        elif not self._reporting.is_alive():
            self.finish()

    def _finish_run(self) -> None:
        summary = self.summary()
        p = self.params
        if p.run:
            path = Path(p.run) / "metrics" / "summary.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(summary, indent=2) + "\n")
        if p.report and p.run:
            self._report(summary)

    def summary(self) -> dict[str, Any]:
        """Return the figures of the run, as written to summary.json."""
        judged = self._evals or self._train
        wins = sum(e.success for e in judged)
        speed = self._reports.speed() if self._robots() else {}
        return {
            "episodes_judged": len(judged),
            "judged": "evaluation" if self._evals else "training",
            "success_rate": wins / len(judged) if judged and self._scored else None,
            "success_interval_95": list(wilson(wins, len(judged))) if self._scored else None,
            "mean_return": fmean(e.total_reward for e in judged) if judged else None,
            "latency_p50_ms": speed.get("latency_p50_ms", 0.0),
            "latency_p99_ms": speed.get("latency_p99_ms", 0.0),
            "steps": self._steps(),
            "drops": {
                n: int(v["drops"]) for n, v in self._reports.nodes.items() if int(v.get("drops", 0))
            },
        }

    def _report(self, summary: dict[str, Any]) -> None:
        from wm_datasets.errors import LogError
        from wm_models.errors import ModelError
        from wm_models.weights.manifest import WeightsError
        from wm_models.weights.store import load_model
        from wm_nodes.agent.weights import find_weights
        from wm_nodes.viz.run_report import ReportError, ReportSettings, write_report

        p = self.params
        log, folder = Path(p.log or Path(p.run) / "log"), Path(p.run) / "report"
        weights = find_weights(p.weights, p.run)
        try:
            model = load_model(weights)[0] if weights is not None else None
            settings = ReportSettings(last=summary["episodes_judged"] or None)
            facts = {"run": summary}
            more = [Path(each) for each in environment_logs(str(log), p.envs)[1:]]
            write_report(log, folder, model=model, settings=settings, facts=facts, more=more)
            print(f"report: {folder}", flush=True)
        except (ReportError, WeightsError, ModelError, LogError, OSError) as error:
            self.get_logger().error(f"no report: {error}")


def main() -> None:
    spin.main(MonitorNode)


if __name__ == "__main__":
    main()
