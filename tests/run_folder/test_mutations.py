"""Whatever becomes of one run's files, the list and the report name the damage, or that nothing is lost by it,
and keep the other runs as they are."""

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from begun_runs import begun
from pmexp.run_folder.found import find_runs
from pmexp.run_folder.journal import Journal
from pmexp.run_folder.summary import write_summary
from pmexp.runs import table
from pmexp_analysis.sources.folders import load_runs

ODD: list[Any] = [
    None, True, -1, 10**400, 1e308, "", "\ud800", "x" * 10_000, [], [[]], {}, {"a": {"b": []}}, float("inf"), "NaN",
]  # fmt: skip
DEEP = "[" * 20_000 + "]" * 20_000


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with three runs as they are when they have finished."""
    runs_dir = tmp_path_factory.mktemp("whole")
    for seed in range(3):
        run, folder = begun(runs_dir, seed)
        (folder.path / "attempts.jsonl").write_text(json.dumps({"attempt": 1}) + "\n")
        with Journal(folder.journal) as journal:
            for step in range(1, 4):
                journal.write(step, {"train/loss": 1 / step, "grad/norm": 1.0})
            journal.write(3, {"test/loss": 0.5})
            told = {"run_id": run.run_id, "name": run.name, "labels": run.labels, "settings": run.settings}
            told |= {"protocol": run.to_dict()["protocol"]}
            metrics = {"train/loss": 1 / 3, "test/loss": 0.5}
            write_summary(folder.summary, told, metrics, {"host": "here"}, {}, None, journal.digest())
    return runs_dir


def cut(content: bytes, chance: random.Random) -> bytes:
    return content[: chance.randrange(len(content) + 1)]


def flipped(content: bytes, chance: random.Random) -> bytes:
    place = chance.randrange(len(content))
    return content[:place] + bytes([content[place] ^ 1 << chance.randrange(8)]) + content[place + 1 :]


def zeroed(content: bytes, chance: random.Random) -> bytes:
    start = chance.randrange(len(content))
    return content[:start] + bytes(len(content) - start)


def doubled(content: bytes, chance: random.Random) -> bytes:
    return 2 * content


def nested(content: bytes, chance: random.Random) -> bytes:
    return DEEP.encode()


def odd_value(content: bytes, chance: random.Random) -> bytes:
    """Returns the JSON with one of its values, however deep, replaced by another one."""
    try:
        told = json.loads(content)
    except ValueError:
        return b"null"
    at = told
    while True:
        key = chance.choice(sorted(at))
        if isinstance(at[key], dict) and at[key] and chance.random() < 0.7:
            at = at[key]
            continue
        at[key] = chance.choice(ODD)
        return json.dumps(told).encode()


def without_a_key(content: bytes, chance: random.Random) -> bytes:
    try:
        told = json.loads(content)
    except ValueError:
        return b"{}"
    del told[chance.choice(sorted(told))]
    return json.dumps(told).encode()


MUTATIONS: list[Callable[[bytes, random.Random], bytes]] = [
    cut, flipped, zeroed, doubled, nested, odd_value, without_a_key,
]  # fmt: skip
FILES = ["summary.json", "journal.jsonl", "owner.json", "config.yaml", "attempts.jsonl"]


@pytest.mark.parametrize("part", range(10))
def test_mutations_cost_their_own_run_alone(whole: Path, tmp_path: Path, part: int) -> None:
    """Each part makes fifty mutations, from seeds of its own."""
    for number in range(50):
        chance = random.Random(f"{part} {number}")
        runs_dir = tmp_path / str(number)
        shutil.copytree(whole, runs_dir)
        hurt = chance.choice(sorted((runs_dir / "all").iterdir()))
        file = hurt / chance.choice(FILES)
        mutation = chance.choice(MUTATIONS)
        before = file.read_bytes()
        file.write_bytes(mutation(before, chance))
        what = f"{part} {number}: {mutation.__name__} of {file.name}"
        listed = {run.run_id: run for run in find_runs(runs_dir, "all")}
        table.runs_json(list(listed.values()))
        table.run_lines(list(listed.values()))
        experiment = load_runs(runs_dir, "all")
        kept = {member.run.run_id for member in experiment.members if member.run.finals is not None}
        others = {path.name for path in whole.glob("all/*")} - {hurt.name}
        assert kept >= others, what
        if file.name == "journal.jsonl" and file.read_bytes() != before:
            assert hurt.name not in kept and str(file) in listed[hurt.name].error, what
        if hurt.name not in kept:
            (missing,) = [one for one in experiment.missing if one.run_id == hurt.name]
            assert missing.why, what
        shutil.rmtree(runs_dir)
