"""Dropped operands made again, against the rivals, by simulation: what the committed tables show, and can be made."""

import json
from pathlib import Path

from torch import nn

from pmexp.command.compose import compose
from pmexp.fit.command import main
from pmexp.fit.simulate import simulate
from pmexp.fit.skeleton import batch_shapes, skeleton
from pmexp.packed_dropout import PackedDropout, recompute_attention, replace_dropout
from pmexp.simulation import predict
from small_runs import TINY_BERT

RESULTS = Path(__file__).parents[2] / "docs" / "results"
BERT_LARGE = ["task=bert-large-wikitext103", "variant=pm-drop-recompute"]


def rows_of(table: Path) -> list[list[str]]:
    """Cells of each row: task, tokens, arm, peak, saving, fits."""
    lines = [line for line in table.read_text().splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[1:]]


def peaks_of(table: str) -> dict[tuple[str, str], dict[str, float]]:
    """GiB by arm, of each task and length."""
    peaks: dict[tuple[str, str], dict[str, float]] = {}
    for task, tokens, arm, peak, *_ in rows_of(RESULTS / f"{table}.md"):
        peaks.setdefault((task, tokens), {})[arm] = float(peak)
    return peaks


def test_bert_large_takes_no_more_than_with_attention_alone_made_again() -> None:
    """64 samples of 512 tokens, eager; three layers, since each further one adds the same."""
    config = compose([*BERT_LARGE, "model.architecture.num_hidden_layers=3"])

    def prepare(module: nn.Module) -> None:
        replace_dropout(module, PackedDropout)
        assert recompute_attention(module)

    attention = predict(lambda: skeleton(config, 512), batch_shapes(config, 64, 512), prepare=prepare)
    assert simulate(config, 64, 512).peak_bytes <= attention.peak_bytes


def test_every_model_takes_less_with_operands_made_again() -> None:
    for peaks in peaks_of("fit-rivals").values():
        assert peaks["pm-drop-recompute"] < min(peaks["baseline"], peaks["seed-only"], peaks["pm-drop"])


def test_adapters_take_no_more_than_without_dropout() -> None:
    tables = peaks_of("fit-llama3-1b") | peaks_of("fit-gptj-6b")
    assert {tokens for _, tokens in tables} == {"512", "2048", "8192", "32768"}
    for peaks in tables.values():
        assert peaks["pm-drop-recompute"] <= peaks["variant.p=0.0"] <= peaks["pm-drop"] < peaks["baseline"]


def test_a_row_of_llama_is_what_is_simulated_now() -> None:
    task = [
        "task=memory/llama3-1b",
        "dataset=wikitext103",
        "dataset.objective=causal_lm",
        "train.batch_size=1",
    ]
    config = compose([*task, "variant=pm-drop-recompute"])
    peak = peaks_of("fit-llama3-1b")["Llama 3.2 1B with LoRA, batch 1", "2048"]["pm-drop-recompute"]
    assert f"{simulate(config, 1, 2048).peak_bytes / 2**30:.1f}" == f"{peak:.1f}"


def test_a_table_without_a_search_has_arms_of_several_overrides(tmp_path: Path) -> None:
    plan, out = tmp_path / "plan.yaml", tmp_path / "table.md"
    arms = ["variant=baseline", ["variant=pm-drop", "system.parts=[tempo]"]]
    task = [*TINY_BERT, "dataset.path=/nowhere", "train.batch_size=8"]
    plan.write_text(json.dumps({"arms": arms, "search": False, "tasks": {"small": task}}))
    assert main([f"table={plan}", "budget=2e6", f"out={out}"]) == 0
    assert [row[2] for row in rows_of(out)] == ["baseline", "pm-drop, system.parts=[tempo]"]
    assert {len(row) for row in rows_of(out)} == {6}
    assert "longest context" not in out.read_text()
