"""Small run folders as the experiments write them, so that the analysis is tested without training."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pmexp.metrics.catalog import metric_of

if TYPE_CHECKING:
    from pmexp_analysis.pages.content import Content
    from pmexp_analysis.sources.experiment import Experiment

TASK, SYSTEM = "net/digits", "plain"


@dataclass
class Runs:
    """Writes run folders under `root`/demo."""

    root: Path

    @property
    def folder(self) -> Path:
        return self.root / "demo"

    def unfinished(
        self, variant: str, seed: int, lines: Sequence[str] = (), failure: Mapping[str, Any] | None = None
    ) -> Path:
        """A run folder with a journal, and a failure.json if `failure` is given; its path."""
        path = self.folder / f"{variant}-{seed}"
        path.mkdir(parents=True)
        (path / "config.yaml").write_text(
            f"name: demo\nseed: {seed}\nmodel: {{name: net}}\ndataset: {{name: digits}}\n"
            f"variant: {{name: {variant}}}\nsystem: {{name: {SYSTEM}}}\n"
        )
        (path / "journal.jsonl").write_text("".join(lines))
        if failure is not None:
            (path / "failure.json").write_text(json.dumps({"kind": "code"} | dict(failure)))
        return path

    def finished(
        self,
        variant: str,
        seed: int,
        finals: Mapping[str, float | None],
        losses: Sequence[float] = (2.0, 1.0),
        run_id: str = "",
        task: str = TASK,
        system: str = SYSTEM,
        settings: Mapping[str, Any] | None = None,
        time: float = 1.5,
        **told: Any,
    ) -> Path:
        """A finished run with the given final values and training losses at steps 1, 2, ...; its path.

        `time`: of its first record. `told`: more of its summary, such as protocol, environment and status.
        """
        lines = [record("train/loss", loss, step, time) for step, loss in enumerate(losses, start=1)]
        words = "".join(f"-{value}" for value in (settings or {}).values())
        name = f"{task.replace('/', '-')}-{variant}-{seed}" + (f"-{system}" if system != SYSTEM else "")
        path = self.folder / (run_id or name + words)
        path.mkdir(parents=True)
        (path / "journal.jsonl").write_text("".join(lines))
        model, dataset = task.split("/")
        labels = {"model": model, "dataset": dataset, "variant": variant, "system": system, "seed": seed}
        summary = {
            "status": "finished",
            "run_id": path.name,
            "labels": {"task": task, **labels},
            "metrics": dict(finals),
            "environment": {"host": f"host{seed % 2}", "threads": 4},
            "settings": dict(settings or {}),
            **told,
        }
        (path / "summary.json").write_text(json.dumps(summary))
        return path

    def out_of_memory(self, variant: str, seed: int, **more: Any) -> Path:
        """A run that ended for want of memory: a result, but one without values."""
        return self.finished(variant, seed, {}, losses=[], status="oom", error="CUDA out of memory", **more)

    def sample(self, metric: str, **values: Sequence[float | None]) -> None:
        """Finished runs of each variant, with seeds 0, 1, ..., whose only final value is that of `metric`."""
        for variant, numbers in values.items():
            for seed, value in enumerate(numbers):
                self.finished(variant, seed, {metric: value})

    def plan(self, *entries: tuple[str, str, int]) -> None:
        """plan.json out of (run id, variant, seed)."""
        self.folder.mkdir(parents=True, exist_ok=True)
        content = [
            {"run_id": run_id, "task": TASK, "system": SYSTEM, "variant": variant, "seed": seed}
            for run_id, variant, seed in entries
        ]
        (self.folder / "plan.json").write_text(json.dumps(content))

    def experiment(self) -> "Experiment":
        """What a report reads of the runs."""
        from pmexp_analysis.sources.folders import load_runs

        return load_runs(self.root, "demo")

    def content(self) -> "Content":
        """What a report says of the runs."""
        from pmexp_analysis.pages.content import content_of

        return content_of(self.experiment(), "now", None, None)


def demo_in(folder: Path) -> Runs:
    """Two variants over three seeds with every kind of metric; the fourth run of `packed` has failed."""
    runs = Runs(folder / "runs")
    for seed in range(3):
        for variant, mask, saved, speed in (("baseline", 4.0, 100, 500.0), ("packed", 0.125, 60, 480.0)):
            finals = {
                "train/loss": 0.5 + seed / 8,
                "test/accuracy": 0.9 + seed / 100 + (seed - 1) ** 2 * (variant == "packed") / 50,
                "memory/mask_bytes_per_element": mask,
                "memory/saved_bytes": float(saved * 2**20),
                "memory/peak_bytes": float((saved + 20) * 2**20 + seed),
                "speed/step_ms": 64e3 / (speed + seed),
                "speed/samples_per_s": speed + 3 * seed * seed * (1 if variant == "packed" else 2),
            }
            runs.finished(variant, seed, finals, losses=[2.0 - seed / 4, 1.0, 0.5 + seed / 8])
    runs.unfinished(
        "packed", 3, failure={"status": "failed", "error": "MemoryError: no room", "log": "log.txt"}
    )
    return runs


def record(metric: str, value: float | None, step: int, time: float = 1.5) -> str:
    """One line of a journal."""
    known = metric_of(metric)
    content = {"metric": metric, "value": value, "unit": known.unit, "direction": known.direction}
    return json.dumps({**content, "step": step, "time": time}) + "\n"
