"""ListOps: what the trees are, their law, and a cache that is the same for any number of processes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from statistics import median_low

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pmexp import datasets
from pmexp.config import DatasetConfig, DatasetKind, TreesConfig
from pmexp.datasets import listops
from pmexp.datasets.listops_trees import VOCABULARY, Procedure, Trees, tilt, tilted
from pmexp.errors import UserError

SMALL = {"samples": 1100, "min_length": 30, "max_length": 90}  # three shards


def config(path: Path | None = None, **trees: object) -> DatasetConfig:
    return DatasetConfig(
        name="listops",
        kind=DatasetKind.listops,
        max_length=256,
        path=str(path) if path else None,
        trees=TreesConfig(**(SMALL | trees)),  # type: ignore[arg-type]
    )


def parsed(words: list[str]) -> tuple[int, int, int]:
    """(value, depth, most arguments) of the one expression that `words` are, by recursion over the words."""
    rest = iter(words)

    def expression(word: str) -> tuple[int, int, int]:
        if word.isdigit():
            return int(word), 1, 0
        parts = []
        while (inner := next(rest)) != "]":
            parts.append(expression(inner))
        values = sorted(value for value, _, _ in parts)
        half = len(values) // 2
        result = {
            "[MIN": values[0],
            "[MAX": values[-1],
            "[SM": sum(values) % 10,
            "[MED": values[half] if len(values) % 2 else int((median_low(values) + values[half]) / 2),
        }[word]
        assert len(parts) >= 2
        return result, 1 + max(d for _, d, _ in parts), max(len(parts), *(a for _, _, a in parts))

    tree = expression(next(rest))
    assert next(rest, None) is None, "words are left after the expression"
    return tree


@settings(max_examples=40)
@given(
    low=st.integers(3, 700),
    room=st.integers(2, 60),
    depth=st.integers(4, 10),
    args=st.integers(4, 10),
    seed=st.integers(0, 2**32 - 1),
)
def test_trees_are_whole_right_and_within_the_bounds(
    low: int, room: int, depth: int, args: int, seed: int
) -> None:
    if args**2 * (args - 1) < low + room:  # no tree of depth 4 is so long
        low = 3
    procedure = Procedure(low, low + room, depth, args)
    for tree, value in zip(*Trees(procedure, np.random.default_rng(seed)).draw(5), strict=True):
        assert low < len(tree) < low + room
        result, deep, widest = parsed([VOCABULARY[i] for i in tree])
        assert result == value
        assert deep <= depth and widest <= args


def test_a_known_expression_has_its_known_value() -> None:
    text = "[SM [MED 1 4 8 [MIN 9 7 ] ] [MAX 3 [SM 9 9 9 ] ] ]"
    words = text.split()
    assert parsed(words)[0] == (5 + 7) % 10
    assert [VOCABULARY[i] for i in listops.ids(words)] == words


def law(procedure: Procedure) -> np.ndarray:
    """The published probability of each number of tokens, by multiplying polynomials: exact but for rounding."""
    leaf = np.array([0.0, procedure.leaf_probability])
    polynomial = np.array([0.0, 1.0])
    for _ in range(procedure.max_depth - 1):
        total, power = np.zeros(1), polynomial
        for _ in range(2, procedure.max_args + 1):
            power = np.convolve(power, polynomial)[:200]
            total = np.pad(total, (0, len(power) - len(total))) + power
        operator = np.concatenate(
            [[0, 0], total * (1 - procedure.leaf_probability) / (procedure.max_args - 1)]
        )
        polynomial = operator[:200]
        polynomial[:2] += leaf
    return polynomial


@pytest.mark.parametrize("low", [2, 60])
def test_lengths_follow_the_published_law_in_its_window(low: int) -> None:
    """Without a tilt and with one. 6000 draws: the largest distance to the exact distribution function is beyond
    1.95 / sqrt(6000) once in a thousand times (Kolmogorov), and the seed is fixed."""
    procedure = Procedure(low, 120, max_depth=4, max_args=5)
    assert (tilt(procedure) > 0) == (low == 60)
    trees, _ = Trees(procedure, np.random.default_rng(1)).draw(6000)
    counted = np.bincount([len(tree) for tree in trees], minlength=120)
    exact = law(procedure)[:120]
    exact[: low + 1] = 0
    distance = np.abs(np.cumsum(counted) / 6000 - np.cumsum(exact) / exact.sum()).max()
    assert distance < 1.95 / np.sqrt(6000)


def test_the_tilt_puts_the_mean_on_the_lower_end() -> None:
    procedure = Procedure(16127, 16384)
    assert tilted(procedure, tilt(procedure))[0] == pytest.approx(16127, rel=1e-6)
    assert tilt(Procedure(50, 100)) == 0.0  # the published mean of 132 lies above it


def test_a_tree_of_16k_tokens_is_within_the_published_bounds() -> None:
    (tree,), (value,) = Trees(Procedure(16127, 16384), np.random.default_rng(0)).draw(1)
    result, deep, widest = parsed([VOCABULARY[i] for i in tree])
    assert (result, deep, widest) == (value, 10, 10)
    assert listops.padded([tree], 16384).shape == (1, 16384)


def test_padding_is_to_the_next_multiple_of_256() -> None:
    trees = [np.full(length, 3, dtype=np.uint8) for length in (255, 7)]
    rows = listops.padded(trees, 512)
    assert rows.shape == (2, 256) and rows.dtype == np.int64
    assert rows[1].tolist() == [1] + [3] * 7 + [0] * 248
    assert listops.padded([np.full(256, 3, dtype=np.uint8)], 512).shape == (1, 512)
    with pytest.raises(ValueError, match="a tree of 256 tokens does not fit into 256"):
        listops.padded([np.full(256, 3, dtype=np.uint8)], 256)


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set that two processes generated."""
    cache = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PMEXP_CACHE", str(cache))
        return listops.prepare(config(), workers=2)


def copied(folder: Path, to: Path) -> Path:
    to.mkdir()
    for file in folder.iterdir():
        (to / file.name).write_bytes(file.read_bytes())
    return to


def expected() -> list[list[int]]:
    """The set made here, in one process and one shard after the other."""
    trees: list[list[int]] = []
    for number, size in enumerate((500, 500, 100)):
        drawn, _ = Trees(Procedure(30, 90), np.random.default_rng([0, number])).draw(size)
        trees += [tree.tolist() for tree in drawn]
    return trees


def test_any_number_of_processes_generates_the_same(generated: Path) -> None:
    data = datasets.load(config(generated))
    assert data.test is not None
    splits = (data.train, data.val, data.test)
    assert [len(split) for split in splits] == [880, 110, 110]
    assert [split.inputs[row].tolist() for split in splits for row in range(len(split))] == expected()
    tree, label = data.val.inputs[7], data.val.labels[7]
    assert parsed([VOCABULARY[i] for i in tree])[0] == label
    assert data.val.take(np.array([7])).inputs[0].tolist() == tree.tolist()


@pytest.mark.parametrize("name", ["tokens.npy", "bounds.npy", "labels.npy", "about.json"])
def test_a_flipped_bit_is_found(name: str, generated: Path, tmp_path: Path) -> None:
    folder = copied(generated, tmp_path / "copy")
    content = bytearray((folder / name).read_bytes())
    content[-9] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(UserError, match=rf"{name}: its checksum is not the one in SHA256SUMS"):
        datasets.load(config(folder))


def test_sums_that_name_not_every_file_are_refused(generated: Path, tmp_path: Path) -> None:
    folder = copied(generated, tmp_path / "copy")
    sums = folder / "SHA256SUMS"
    sums.write_text("".join(line + "\n" for line in sums.read_text().splitlines() if "labels" not in line))
    with pytest.raises(UserError, match=r"SHA256SUMS does not name labels\.npy"):
        datasets.load(config(folder))


def test_a_folder_of_other_settings_or_none_is_refused(generated: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"was generated with seed=0, the configuration says 1"):
        datasets.load(config(generated, seed=1))
    with pytest.raises(UserError, match=r"is no generated listops set"):
        datasets.load(config(tmp_path))


def test_a_window_with_too_few_trees_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PMEXP_CACHE", str(tmp_path))
    with pytest.raises(UserError, match=r"dataset\.trees\.samples: of 100 trees .* only \d+ differ"):
        listops.prepare(config(samples=100, min_length=1, max_length=5), workers=1)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="finds the worker in /proc")
def test_after_a_killed_worker_the_finished_shards_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("PMEXP_CACHE", str(tmp_path))
    folder = tmp_path / "listops"
    code = (
        "from pmexp.config import *; from pmexp.datasets import listops;"
        "listops.prepare(DatasetConfig(name='listops', kind=DatasetKind.listops, max_length=256,"
        f"trees=TreesConfig(**{SMALL | {'samples': 12000}})), workers=1)"
    )
    command = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True)
    while not list(folder.glob("*.partial/shard-000001.npz")):
        assert command.poll() is None
        time.sleep(0.01)
    children = Path(f"/proc/{command.pid}/task/{command.pid}/children").read_text().split()
    worker = next(pid for pid in children if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes())
    os.kill(int(worker), signal.SIGKILL)
    assert "run the same command to go on from the finished shards" in command.communicate()[1]
    kept = sorted(folder.glob("*.partial/shard-*.npz"))
    assert len(kept) < 24
    with caplog.at_level("INFO", logger="pmexp"):
        done = listops.prepare(config(samples=12000), workers=1)
    assert f"{len([f for f in kept if not f.stem.endswith('.tmp')])} of 24 shards are there" in caplog.text
    tokens = np.load(done / "tokens.npy")
    assert tokens[: 500 * 30].tolist() == [i for tree in expected()[:500] for i in tree][: 500 * 30]
    assert not list(done.glob("shard*"))
