"""`python -m pmexp.fit`: the search, both methods, and what is written."""

import json
from pathlib import Path

import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st

from pmexp.command.compose import compose
from pmexp.datasets.listops_trees import VOCABULARY
from pmexp.fit.budget import CONTEXT_BYTES, budget_bytes
from pmexp.fit.command import main
from pmexp.fit.search import Probe, batches, lengths, search
from pmexp.fit.simulate import simulate
from pmexp.fit.skeleton import batch_shapes, skeleton
from pmexp.systems import system
from small_runs import TINY_BERT

RESULTS = Path(__file__).parents[2] / "docs" / "results"
NO_DATA = [*TINY_BERT, "dataset.path=/nowhere", "train.batch_size=8"]


@given(
    fixed=st.integers(0, 1000),
    slope=st.integers(1, 50),
    curve=st.integers(0, 3),
    budget=st.integers(1, 10**6),
    start=st.integers(0, 200),
    dies=st.booleans(),
)
def test_the_search_finds_the_largest(
    fixed: int, slope: int, curve: int, budget: int, start: int, dies: bool
) -> None:
    """`dies`: the device runs out of memory and tells no peak."""

    made = []

    def peak_of(value: int) -> int:
        return fixed + slope * value + curve * value**2

    def probe(value: int) -> Probe:
        made.append(value)
        peak = peak_of(value)
        return Probe(value, peak if peak <= budget or not dies else None, {}, peak <= budget)

    values = range(1, 5001)
    largest = search(values, start, budget, probe)
    assert largest == max((value for value in values if peak_of(value) <= budget), default=None)
    assert len(made) <= 24 and len(set(made)) == len(made)


def test_micro_batches_divide_the_global_batch() -> None:
    assert batches(12) == [1, 2, 3, 4, 6, 12]
    assert list(lengths(64)[:3]) == [64, 128, 192]


def test_simulation_answers_without_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "new" / "answer.json"
    assert main([*NO_DATA, "budget=2e6", "variant=pm-drop", f"out={out}"]) == 0
    answer = json.loads(out.read_text())
    assert answer["peak_bytes"] == sum(answer["by_category"].values())
    assert answer["fits"] == (answer["peak_bytes"] <= answer["budget_bytes"] == 2_000_000)
    probes = {probe["value"]: probe for probe in answer["probes"]}
    assert probes[8]["peak_bytes"] == answer["peak_bytes"]
    assert probes[answer["largest"]]["fits"] and not probes[answer["largest"] + 1]["fits"]
    assert answer["labels"]["variant"] == "pm-drop" and "fragmentation" in " ".join(answer["not_modelled"])
    printed = capsys.readouterr().out
    assert f"largest batch that fits: {answer['largest']}" in printed
    assert max(map(len, printed.splitlines())) <= 110


def test_a_real_run_is_measured_within_its_global_batch(tmp_path: Path) -> None:
    out = tmp_path / "answer.json"
    keys = [
        "model.architecture.num_hidden_layers=1",
        "variant=byte-mask",
        "system.device=cpu",
        "budget=1500000",
        "global_batch=32",
    ]
    assert main(["method=measure", *keys, f"out={out}"]) == 0
    answer = json.loads(out.read_text())
    probes = {probe["value"]: probe for probe in answer["probes"]}
    assert set(probes) <= {1, 2, 4, 8, 16, 32}
    assert (
        not answer["fits"] and probes[answer["largest"]]["fits"] and not probes[2 * answer["largest"]]["fits"]
    )
    assert main(["method=simulate", *keys, f"out={out}"]) == 0
    predicted = json.loads(out.read_text())
    assert predicted["peak_bytes"] == pytest.approx(answer["peak_bytes"], rel=0.01)


def test_a_budget_is_bytes_or_gib_or_what_a_device_leaves() -> None:
    assert budget_bytes("80e9") == budget_bytes("80000000000") == 80 * 10**9
    assert budget_bytes("78.5GiB") == budget_bytes("78.5 GiB") == 785 * 2**30 // 10
    card = budget_bytes("A100-80GB")
    assert 80e9 < card < 79.1 * 2**30 and card + CONTEXT_BYTES == round(79.1 * 2**30)


def test_a_table_of_tasks_and_arms(tmp_path: Path) -> None:
    plan = tmp_path / "plan.yaml"
    arms = "arms: [variant=baseline, variant=pm-drop]"
    plan.write_text(f"{arms}\nlengths: [16, 32]\ntasks:\n  small: {json.dumps(NO_DATA)}\n")
    assert main([f"table={plan}", "budget=2e6", f"out={tmp_path / 'table.md'}"]) == 0
    rows = rows_of(tmp_path / "table.md")
    assert [row[1:3] for row in rows] == [
        [tokens, arm] for tokens in ("16", "32") for arm in ("baseline", "pm-drop")
    ]
    for baseline, ours in (rows[:2], rows[2:]):
        assert baseline[4] == "0.0%" and float(ours[4][:-1]) > 0
        assert int(ours[6]) >= int(baseline[6])
    assert [row[7] for row in rows] == ["none"] * 4  # 64 tokens are too long already


def rows_of(table: Path) -> list[list[str]]:
    """Cells of each row: task, tokens, arm, peak, saving, fits, largest batch, longest context."""
    lines = [line for line in table.read_text().splitlines() if line.startswith("| ")]
    return [line.strip("| ").split(" | ") for line in lines[1:]]


def test_a_row_of_the_committed_table_is_what_is_simulated_now() -> None:
    tasks = yaml.safe_load((RESULTS / "fit-exp-1.yaml").read_text())["tasks"]
    task, tokens, arm, *_, largest, _ = rows_of(RESULTS / "fit-exp-1.md")[1]
    assert (tokens, arm) == ("128", "pm-drop")
    config = compose([*tasks[task], f"variant={arm}", f"dataset.max_length={tokens}"])
    most, more = (simulate(config, int(largest) + n, int(tokens)).peak_bytes for n in (0, 1))
    assert most <= budget_bytes("A100-80GB") < more


def test_a_gptj_with_adapters_fits_one_card() -> None:
    """The committed row; in fp32 with all weights trained its states alone take 97 GB."""
    rows = {tuple(row[1:3]): row for row in rows_of(RESULTS / "fit-gptj-6b.md")}
    row = rows["512", "pm-drop"]
    assert row[5] == "yes"
    config = compose(["task=memory/gptj-6b", "variant=pm-drop", "train.batch_size=8"])
    prediction = simulate(config, 8, 512)
    assert f"{prediction.peak_bytes / 2**30:.1f}" == row[3]
    assert prediction.peak_bytes < budget_bytes("A100-80GB")
    without_the_word_head = pytest.approx(2 * 5.85e9, rel=0.01)
    assert prediction.peak.by_category["frozen"] == without_the_word_head


def test_the_committed_tables_show_what_the_study_says() -> None:
    saving = {tuple(row[:3]): float(row[4][:-1]) for row in rows_of(RESULTS / "fit-exp-1.md")}
    for task in {task for task, *_ in saving}:
        grown = [saving[task, tokens, "pm-drop"] for tokens in ("128", "512", "1024")]
        assert grown == sorted(grown) and grown[0] < grown[-1], task
    largest = {tuple(row[:3]): int(row[6]) for row in rows_of(RESULTS / "fit-exp-1.md")}
    base = ("BERT-Base on SST-2, batch 32", "512")
    assert largest[*base, "baseline"] < 128 <= largest[*base, "pm-drop"]  # which fits with the method alone
    tries = {tuple(row[:3]): row[4:7] for row in rows_of(RESULTS / "fit-exp-2.md")}
    of = ("Longformer on ListOps, 4 x 2", "16384")  # with each layer recomputed, masks live for one layer
    (_, _, stock), (gain, _, packed) = tries[*of, "baseline-zero2"], tries[*of, "pm-drop-zero2"]
    assert float(gain[:-1]) < 2 and stock == packed


@pytest.mark.parametrize(
    ("task", "inputs"),
    [
        ("tinybert-mrpc", {"input_ids", "attention_mask", "token_type_ids"}),
        ("bert-large-wikitext103", {"input_ids"}),
        ("longformer-listops", {"input_ids", "attention_mask"}),
        ("vit-imagenet", {"pixel_values"}),
    ],
)
def test_a_batch_has_the_inputs_of_the_runs_examples(task: str, inputs: set[str]) -> None:
    shapes = batch_shapes(compose([f"task={task}"]), 2, 16384)
    assert set(shapes) == inputs | {"labels"}
    assert shapes["labels"][0] == ((2, 16384) if task == "bert-large-wikitext103" else (2,))


def test_a_skeleton_has_the_positions_and_the_symbols_of_the_run() -> None:
    narrow = ["model.architecture.hidden_size=12", "model.architecture.num_hidden_layers=1"]
    with torch.device("meta"):
        model = skeleton(compose(["task=longformer-listops", *narrow]), 20000)
    words, positions = (
        model.get_parameter(f"longformer.embeddings.{name}_embeddings.weight").shape
        for name in ("word", "position")
    )
    assert (words[0], positions[0]) == (len(VOCABULARY), 20000 + 1)


def test_one_of_several_processes_without_their_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flash is there before dropout is replaced; DeepSpeed and a launcher are not needed."""

    def missing(part: str) -> None:
        raise AssertionError(f"{part} was asked for")

    monkeypatch.setattr(system, "check_packages", missing)
    plain = compose([*NO_DATA, "variant=pm-drop"])
    ranks = compose([*NO_DATA, "variant=pm-drop", "system=zero2-flash", "system.processes=4"])
    one, four = (simulate(config, 2, 64).peaks["update"].by_category for config in (plain, ranks))
    assert four["parameters"] == one["parameters"] * 5 / 4
    masks = [simulate(config, 2, 64).peaks["forward"].by_category["masks"] for config in (plain, ranks)]
    heads, layers = (
        plain.model.architecture["num_attention_heads"],
        plain.model.architecture["num_hidden_layers"],
    )
    assert masks[0] - masks[1] == layers * 2 * heads * 64**2 // 8


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (["variant=baseline,4bit"], "variant=baseline,4bit: several values are a sweep; give one at a time"),
        (
            ["experiment=exp-1-main-perf"],
            "experiment=exp-1-main-perf: is a sweep of 60 runs; choose variant, task and seed",
        ),
        (["hydra.launcher.n_jobs=2"], "hydra.launcher.n_jobs=2: launchers execute sweeps; leave it out"),
        (
            ["--config-dir", "no-folder"],
            "config_dir: no-folder is no folder; name one with options of your own",
        ),
        (["method=guess"], "method: 'guess' is unknown; allowed are simulate, measure"),
        (
            ["budget=-1"],
            "budget: '-1' is no amount of memory; allowed are bytes such as 80e9 (1 MiB at least), GiB such as ",
        ),
        (["budget=80"], "budget: '80' is 80 bytes; allowed are bytes such as 80e9"),
        (["budget=H900"], "budget: 'H900' is no amount of memory"),
        (["budget=1e999"], "budget: '1e999' is no amount of memory"),
        (["global_batch=0"], "global_batch: '0' is no number of samples"),
        (["global_batch=33"], "global_batch: 33 is no multiple of 32"),
        (["what=length"], "what=length: model=vit-digits takes images; allowed is what=batch"),
        (["table=/nowhere.yaml"], "table: /nowhere.yaml cannot be read"),
        (["system=offload"], "system.parts: offload is not simulated; leave it out, or use method=measure"),
        (["variant=none"], "variant=none: is not an option"),
    ],
)
def test_a_wrong_key_is_one_line(keys: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(keys) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {message}") and error.count("\n") == 1


def test_a_table_with_a_key_given_twice_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = tmp_path / "plan.yaml"
    plan.write_text("arms: [variant=baseline]\ntasks:\n  small: [seed=0]\n  small: [seed=1]\n")
    assert main([f"table={plan}"]) == 2
    said = "'small' is given twice, in lines 3 and 4; keep one of them"
    assert capsys.readouterr().err == f"error: table: {plan} cannot be read: {said}\n"
