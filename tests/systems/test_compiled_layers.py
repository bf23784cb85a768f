"""Compiled layers: the losses of eager mode, one graph for equal layers, and a record of what they really save.

Most cases are traced for the backend aot_eager, which computes and draws as eager mode does, in seconds.
"""

from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch._subclasses import FakeTensorMode
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    LongformerConfig,
    LongformerForSequenceClassification,
)

from pmexp.config import Part, SystemConfig, VariantConfig
from pmexp.errors import UserError
from pmexp.measure.saved_for_backward import SavedForBackward
from pmexp.systems import compile
from pmexp.systems.system import System
from pmexp.variants.replace import apply_variant
from small_runs import TINY_VIT, Runs

pytestmark = [
    # The tracer warns, and hides it where warnings are no errors: the input of a layer is another one's output.
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning"),
    pytest.mark.filterwarnings("ignore:`torch.jit.*` is deprecated:DeprecationWarning"),  # in inductor
]

SIZES: dict[str, Any] = {
    "hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2, "vocab_size": 99,
}  # fmt: skip


@pytest.fixture(autouse=True)
def fresh_compiler() -> None:
    torch.compiler.reset()


@pytest.fixture
def aot_eager(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compile, "BACKEND", "aot_eager")


def graphs() -> int:
    return int(torch._dynamo.utils.counters["stats"]["unique_graphs"])


def steps(
    parts: list[str], layers: int, p: float = 0.1
) -> tuple[list[torch.Tensor], list[int], dict[str, str]]:
    """Losses of three steps of pm-drop in a BERT of so many layers, bytes saved in the first two, the record."""
    torch.manual_seed(0)
    rates = {"hidden_dropout_prob": p, "attention_probs_dropout_prob": p}
    config = BertConfig(**SIZES, **rates, num_hidden_layers=layers, attn_implementation="eager")
    model = BertForSequenceClassification(config).train()
    system = System(SystemConfig(parts=[Part[part] for part in parts]))
    system.before_variant(model)
    apply_variant(model, VariantConfig(name="pm-drop", dropout="packed"))
    system.prepare(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    torch.manual_seed(1)
    losses, saved = [], []
    for ledger in (SavedForBackward(model), SavedForBackward(model), None):
        with ledger or nullcontext(), system.forward():
            ids = torch.arange(64).view(2, 32)
            losses.append(model(ids, attention_mask=(ids != 5).long()).logits.float().square().mean())
        losses[-1].backward()
        optimizer.step()
        optimizer.zero_grad()
        if ledger:
            saved.append(int(ledger.metrics()["memory/saved_bytes"]))
    return losses, saved, system.record(model)


@pytest.mark.usefixtures("aot_eager")
def test_equal_layers_share_one_graph_with_and_without_the_ledger() -> None:
    """There are more layers than torch compiles a function for; and the ledger counts the graph, not its tracing."""
    before, layers = graphs(), torch._dynamo.config.recompile_limit + 1
    losses, saved, record = steps(["compile"], layers)
    assert graphs() - before == 1
    expected, eager_saved, _ = steps([], layers)
    assert losses == expected
    assert saved[0] == saved[1] == eager_saved[0]  # this backend's graph saves what eager mode saves
    assert record["compile"] == f"{layers} BertLayer by aot_eager, a graph a layer"


@pytest.mark.usefixtures("aot_eager")
def test_it_composes_wherever_it_is_listed() -> None:
    parts = ["compile", "bf16", "checkpointing", "tempo", "offload"]
    losses, saved, record = steps(parts, 1)
    assert losses == steps(parts[1:], 1)[0]
    assert saved[0] < 0.5 * steps([], 1)[1][0]
    norms = {line for name, line in record.items() if name.endswith("LayerNorm") and "layer." in name}
    assert norms == {"in-place LayerNorm: stock under torch.compile"}


@pytest.mark.usefixtures("aot_eager")
def test_what_cannot_be_compiled_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    config = BertConfig(**SIZES, num_hidden_layers=1)
    with FakeTensorMode(), pytest.raises(UserError, match=r"system\.parts: compile cannot be simulated"):
        compile.Compile().prepare(BertForSequenceClassification(config))
    with pytest.raises(UserError, match=r"system\.parts: compile cannot trace the layers of LongformerFor"):
        compile.Compile().prepare(
            LongformerForSequenceClassification(
                LongformerConfig(**SIZES, num_hidden_layers=1, attention_window=4)
            )
        )
    monkeypatch.setattr("transformers.models.bert.modeling_bert.BertIntermediate.forward", print)
    with pytest.raises(torch._dynamo.exc.Unsupported):
        steps(["compile"], 1)


@pytest.mark.usefixtures("aot_eager")
def test_a_run_has_no_figure_of_eager_mode(runs: Runs) -> None:
    arguments = [*TINY_VIT, "train.max_steps=3", "train.log_every=1", "tracking=off", "variant=pm-drop"]
    curves, summaries = {}, {}
    for system in ("plain", "compile"):
        runs.name = system
        assert runs.train(*arguments, f"system={system}", f"name={system}")[0] == 0
        curves[system] = runs.curve("pm-drop-s0", "train/loss")
        summaries[system] = runs.summaries()["pm-drop-s0"]
    assert curves["compile"] == curves["plain"]
    plain, compiled = (summaries[system]["metrics"] for system in ("plain", "compile"))
    assert set(plain) - set(compiled) == {
        "memory/mask_bytes", "memory/mask_bytes_per_element", "memory/mask_elements", "speed/flops_per_step",
        "check/gradient_error",
    }  # fmt: skip
    for name in ("parameters", "gradients", "optimizer"):
        assert plain[f"memory/{name}_bytes"] == compiled[f"memory/{name}_bytes"]
    record = summaries["compile"]["environment"]
    assert record["gradient_check"].startswith("not checked: the layers are compiled")
    assert record["compile"] == "1 ViTLayer by aot_eager, a graph a layer"
    assert record["flops"].startswith("not counted") and "masks cannot be told apart" in record["ledger"]


@pytest.mark.slow
def test_inductor_computes_what_eager_mode_computes() -> None:
    """They agree to the rounding of float32, once inductor draws as eager mode does."""
    import torch._inductor.config as inductor

    with inductor.patch(fallback_random=True):
        actual, saved, record = steps(["compile"], 1)
    expected, eager_saved, _ = steps([], 1)
    torch.testing.assert_close(actual, expected, rtol=16 * torch.finfo(torch.float32).eps, atol=0)
    assert saved[0] == saved[1] <= eager_saved[0]
    assert record["compile"] == "1 BertLayer by inductor, a graph a layer"
