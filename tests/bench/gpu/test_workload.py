"""Training steps of a BERT: one set of weights, and each variant's own dropout."""

from pathlib import Path

import torch
import yaml

from pmexp.bench.gpu.workload import SIZES, Size, Workload
from pmexp.packed_dropout import PackedDropout

CONF = Path(__file__).parents[3] / "conf" / "model"
CPU = torch.device("cpu")
TINY = Size("tiny", 4, 16, {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16, "vocab_size": 99})  # fmt: skip


def test_variants_are_trained_on_one_set_of_weights_and_drop_by_their_own() -> None:
    workload = Workload(TINY, "eager", "fp32", CPU, ["baseline", "pm-drop"])
    trees = [workload._modules[name] for name in workload.variants]
    parameters = [list(tree.parameters()) for tree in trees]
    assert all(a is b for a, b in zip(*parameters, strict=True))
    packed = [any(isinstance(part, PackedDropout) for part in tree.modules()) for tree in trees]
    assert packed == [False, True]
    before = parameters[0][0].detach().clone()
    workload.step("pm-drop", 4)
    assert not torch.equal(before, parameters[0][0]) and parameters[0][0].grad is None


def test_sizes_are_those_of_conf() -> None:
    for size in SIZES:
        described = yaml.safe_load((CONF / f"{size.name}.yaml").read_text())["architecture"]
        rates = {described.pop(f"{place}_dropout_prob") for place in ("hidden", "attention_probs")}
        assert rates == {0.1} and described.pop("max_position_embeddings") == size.length
        assert described == size.architecture
