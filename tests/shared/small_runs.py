"""Small runs on real data through the command line, in this process."""

import json
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from pmexp import train
from pmexp.command.schema import conf_folder
from pmexp.command.sweep_product import ALSO

TINY_VIT = [
    "train.threads=1",
    "model.architecture.num_hidden_layers=1",
    "model.architecture.hidden_size=16",
    "model.architecture.intermediate_size=16",
]
TINY_BERT = [
    "model=tinybert",
    "model.pretrained=false",
    "dataset=reuters-r8",
    "dataset.max_length=32",
    "model.architecture.vocab_size=1000",
    "model.architecture.num_hidden_layers=1",
    "model.architecture.hidden_size=24",
    "model.architecture.intermediate_size=24",
    "train.threads=1",
]


def first_of(experiment: str) -> list[str]:
    """Overrides for one run of an experiment's sweep: the first value of each key."""
    file = conf_folder() / "experiment" / f"{experiment}.yaml"
    swept = yaml.safe_load(file.read_text())["hydra"]["sweeper"]["params"]
    return [
        f"experiment={experiment}",
        *(f"{key}={str(swept[key]).split(',')[0]}" for key in swept if key != ALSO),
    ]


def last_of_each(arguments: Iterable[str]) -> list[str]:
    """The arguments without those whose key is given again, which is refused."""
    return list({argument.partition("=")[0].lstrip("+"): argument for argument in arguments}.values())


@dataclass
class Runs:
    """A folder of runs and the command that fills it."""

    folder: Path
    capture: pytest.CaptureFixture[str]
    name: str = "default"

    def train(self, *arguments: str) -> tuple[int, str, str]:
        """`python -m pmexp.train` in this process: (exit code, stdout, stderr)."""
        self.capture.readouterr()
        before = sys.argv
        sys.argv = ["train", *last_of_each(arguments), f"runs_dir={self.folder}"]
        try:
            code = train.main()
        finally:
            sys.argv = before
        out, err = self.capture.readouterr()
        return code, out, err

    def run_folders(self) -> list[Path]:
        return sorted(file.parent for file in (self.folder / self.name).glob("*/config.yaml"))

    def summaries(self) -> dict[str, dict[str, Any]]:
        """Returns the summary of each finished run by variant and seed, e.g. "pm-drop-s0"."""
        by_name = {}
        for file in (self.folder / self.name).glob("*/summary.json"):
            summary = json.loads(file.read_text())
            labels = summary["labels"]
            by_name[f"{labels['variant']}-s{labels['seed']}"] = summary
        return by_name

    def curve(self, variant_and_seed: str, metric: str) -> list[tuple[int, float]]:
        """(step, value) of one metric out of one run's journal."""
        summary = self.summaries()[variant_and_seed]
        journal = self.folder / self.name / summary["run_id"] / "journal.jsonl"
        records = [json.loads(line) for line in journal.read_text().splitlines()]
        return [(record["step"], record["value"]) for record in records if record["metric"] == metric]
