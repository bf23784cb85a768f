"""replace_dropout reaches every dropout: measured on real architectures by what they save for backward."""

import copy
import pickle
from typing import Any, cast

import pytest
import torch
import torch.nn.functional as F
import transformers as hf
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.checkpoint import checkpoint

from pmexp.packed_dropout import (
    PackedDropout,
    backend,
    packed_dropout,
    recompute_attention,
    replace_dropout,
)
from pmexp.packed_dropout.call_sites import call_sites
from pmexp.packed_dropout.routed_modules import routed_dropout
from small_transformers import BERT, MODELS, RATE, build, call


def saved_unpacked_masks(name: str, model: nn.Module) -> list[str]:
    """Saved tensors that are a mask or noise of dropout: Boolean, or with no value but 0 and 1 / (1 - rate)."""
    masks = []

    def look(tensor: Tensor) -> Tensor:
        values = tensor.detach()
        noise = values.is_floating_point() and values.numel() > 50
        scale = torch.ones((), dtype=values.dtype) / (1 - RATE) if noise else None
        if noise and ((values == 0) | (values == scale)).all() and (values == scale).any():
            masks.append(f"noise {tuple(values.shape)}")
        if values.dtype == torch.bool and values.numel() > 50 and 0.6 < values.double().mean() < 0.9:
            masks.append(f"mask {tuple(values.shape)}")
        return tensor

    with saved_tensors_hooks(look, lambda tensor: tensor):
        call(name, model)
    return masks


WITH_SDPA = ("bert", "roberta", "distilbert", "gpt2", "t5", "bart", "vit")
each_attention = pytest.mark.parametrize(
    ("name", "attention"), [*((name, "eager") for name in MODELS), *((name, "sdpa") for name in WITH_SDPA)]
)


@each_attention
def test_no_mask_is_saved_unpacked_after_the_swap(name: str, attention: str) -> None:
    model = build(name, attention)
    before = saved_unpacked_masks(name, model)
    report = replace_dropout(model, PackedDropout)
    without_dropout = saved_unpacked_masks(name, model.eval())  # T5 saves a mask of its attention
    assert len(before) > len(without_dropout), "the probe does not see this model's stock dropout"
    assert saved_unpacked_masks(name, model.train()) == without_dropout
    assert report.left == {}
    assert ("math kernel on cpu" in report.attention.values()) == (attention == "sdpa")


@each_attention
def test_same_masks_give_the_same_training_step(name: str, attention: str) -> None:
    """With rng=torch the swapped model's output and gradients are bit-identical: nothing else has changed."""
    outputs = []
    for swap in (False, True):
        model = build(name, attention)
        if swap:
            replace_dropout(model, PackedDropout, rng="torch")
        torch.manual_seed(7)
        output = call(name, model)
        output.square().mean().backward()
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        outputs.append([output, *gradients])
    assert len(outputs[0]) == len(outputs[1])
    assert all(torch.equal(a, b) for a, b in zip(*outputs, strict=True))


@pytest.mark.parametrize("name", ["bert", "vit", "bart"])
def test_eval_output_and_state_dict_keys_stay(name: str) -> None:
    model = build(name).eval()
    expected, keys = call(name, model), list(model.state_dict())
    replace_dropout(model, PackedDropout)
    assert torch.equal(call(name, model), expected)
    assert list(model.state_dict()) == keys
    assert not any(module.training for module in model.modules())


def test_other_kernels_keep_their_attention_dropout_and_the_report_says_so() -> None:
    model: Any = build("bert", "sdpa")
    for layer in model.encoder.layer:
        layer.attention.self.config = copy.copy(model.config)
        layer.attention.self.config._attn_implementation = "flex_attention"
    report = replace_dropout(model, PackedDropout)
    assert report.functions == [] and report.attention == {}
    assert list(report.left) == [f"encoder.layer.{i}.attention.self" for i in (0, 1)]
    said = "encoder.layer.*.attention.self x 2: attention dropout lives inside the flex_attention kernel"
    assert said in str(report), "layers that are alike are one line"


@pytest.mark.parametrize(
    ("where", "modules", "functions"),
    [("attention", 0, 2), ("hidden", 5, 0), ("all", 5, 2)],
)
def test_selection_by_place(where: Any, modules: int, functions: int) -> None:
    report = replace_dropout(build("bert"), PackedDropout, where=where)
    assert (len(report.modules), len(report.functions)) == (modules, functions)
    assert len(report.left) == 7 - modules - functions


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((nn.Dropout(), PackedDropout(0.1)), "dropout: a PackedDropout is no class; write replace_dropout(model, PackedDropout)"),
        ((nn.Dropout(), nn.Linear), "dropout: the class Linear is no subclass of torch.nn.Dropout; write replace_dropout("),
        ((nn.Dropout(), "packed"), "dropout: a str is no class"),
        ((PackedDropout, nn.Sequential()), "model: the class PackedDropout is no module; write replace_dropout(model, PackedDropout)"),
        ((PackedDropout(0.1), nn.Sequential()), "dropout: a Sequential is no class"),
        ((None, PackedDropout), "model: a NoneType is no module"),
    ],
)  # fmt: skip
def test_what_is_no_model_or_no_class_of_dropout_is_refused(arguments: Any, message: str) -> None:
    with pytest.raises(TypeError) as error:
        replace_dropout(*arguments)
    assert str(error.value).startswith(message) and "\n" not in str(error.value)


def test_what_is_no_module_or_no_tensor_is_named() -> None:
    with pytest.raises(TypeError, match=r"^model: an int is no module; write recompute_attention\(model\)$"):
        recompute_attention(cast(Any, 3))
    for drop in (PackedDropout(0.1), packed_dropout):
        with pytest.raises(TypeError, match=r"^input: a list is no tensor$"):
            drop(cast(Any, [1.0]))
    assert backend("cpu") == backend(torch.device("cpu"))


def test_the_code_of_a_routed_module_is_that_of_its_class() -> None:
    """Python 3.13 has no source for a class that was made by `type`, and the rate-only dropouts were exchanged."""
    model: Any = build("bert")
    attention = model.encoder.layer[0].attention.self
    before = call_sites(attention)
    replace_dropout(model, PackedDropout)
    assert routed_dropout(attention) is not None and before.rate_only == {"dropout"}
    assert call_sites(attention) is before


class HalvesByAnAttribute(nn.Module):
    halved = staticmethod(lambda x: F.dropout(x, 0.5))

    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(self.halved(x), 0.3, self.training)


def test_methods_alone_are_read_for_calls() -> None:
    assert call_sites(HalvesByAnAttribute()).methods == {"forward"}


def test_what_is_not_selected_keeps_stock_dropout_inside_a_routed_module() -> None:
    """BART's layers call functional dropout around attention that does so too: each keeps to its place."""
    model = build("bart")
    replace_dropout(model, PackedDropout, where="hidden")
    assert set(saved_unpacked_masks("bart", model)) == {"noise (2, 1, 16, 16)"}
    replace_dropout(model, PackedDropout, where="attention")
    assert set(saved_unpacked_masks("bart", model)) == {"noise (2, 16, 16)"}


def test_going_back_to_nn_dropout() -> None:
    model = build("vit")
    before = saved_unpacked_masks("vit", model)
    replace_dropout(model, PackedDropout)
    report = replace_dropout(model, nn.Dropout)
    assert saved_unpacked_masks("vit", model) == before
    assert report.modules and not any(isinstance(m, PackedDropout) for m in model.modules())


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_going_back_where_functions_alone_drop(attention: str) -> None:
    config = hf.CLIPVisionConfig(
        **BERT, image_size=8, patch_size=4, attention_dropout=RATE, attn_implementation=attention
    )
    model: Any = hf.CLIPVisionModel(config).train()
    if attention == "eager":
        replace_dropout(model, PackedDropout)
    example = {"pixel_values": torch.zeros(1, 3, 8, 8)}
    report = replace_dropout(model, nn.Dropout, example=example)
    assert report.settled and set(report.left.values()) == {"functional calls are nn.Dropout's own"}
    assert not any(routed_dropout(module) for module in model.modules())


def test_where_nothing_is_to_be_replaced_an_earlier_swap_stays() -> None:
    model = nn.Sequential(_OwnFunctional())
    replace_dropout(model, PackedDropout, where="hidden")
    x = torch.ones(64, requires_grad=True)
    with pytest.raises(ValueError, match="nothing to replace"):
        replace_dropout(model, PackedDropout, where="attention", example=(x,))
    assert model(x).grad_fn.name().endswith("PackedDropoutBackward")


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_copy_of_a_swapped_model_is_swapped_on_its_own(copied: Any) -> None:
    model = build("bert")
    replace_dropout(model, PackedDropout)
    twin = copied(model)
    replace_dropout(model, nn.Dropout)
    assert saved_unpacked_masks("bert", twin) == []
    assert saved_unpacked_masks("bert", model) != []


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpointed_layers_recompute_the_same_masks(reentrant: bool) -> None:
    grads = []
    for checkpointed in (False, True):
        model = build("bert")
        replace_dropout(model, PackedDropout)
        layer = model.encoder.layer[0]  # type: ignore[union-attr, index]
        x = torch.linspace(-1, 1, 2 * 16 * 16).view(2, 16, 16).requires_grad_()
        torch.manual_seed(5)
        y = checkpoint(layer, x, use_reentrant=reentrant) if checkpointed else layer(x)
        y.square().sum().backward()
        grads.append(x.grad)
    assert torch.equal(grads[0], grads[1])


def test_torch_compile_traces_through_the_route() -> None:
    model = build("bert")
    replace_dropout(model, PackedDropout)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    torch.manual_seed(3)
    expected = call("bert", model)
    torch.manual_seed(3)
    assert torch.equal(call("bert", compiled), expected)


def test_a_module_used_twice_stays_one_module() -> None:
    shared = nn.Dropout(0.1)
    model = nn.Sequential(shared, nn.Linear(3, 3), shared)
    report = replace_dropout(model, PackedDropout)
    assert model[0] is model[2] and isinstance(model[0], PackedDropout)
    assert report.modules == ["0", "2"]


class _OwnFunctional(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(x, RATE, self.training)


def test_functional_dropout_of_ones_own_module_and_an_error_in_it() -> None:
    class Failing(_OwnFunctional):
        def forward(self, x: Tensor) -> Tensor:
            super().forward(x)
            raise RuntimeError("on purpose")

    x = torch.ones(64, requires_grad=True)
    model = nn.Sequential(_OwnFunctional())
    assert replace_dropout(model, PackedDropout).functions == ["0"]
    assert model(x).grad_fn.name().endswith("PackedDropoutBackward")
    failing = Failing()
    replace_dropout(failing, PackedDropout)
    with pytest.raises(RuntimeError, match="on purpose"):
        failing(x)
    assert type(F.dropout(x, RATE).grad_fn).__name__ == "MulBackward0"  # the route is gone


class _OwnAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.out_dropout = nn.Dropout(RATE)

    def forward(self, x: Tensor) -> Tensor:
        return self.out_dropout(F.dropout(x, RATE, self.training))


def test_a_dropout_module_left_alone_is_not_caught_by_the_route_around_it() -> None:
    model = nn.Sequential(_OwnAttention())
    report = replace_dropout(model, PackedDropout, where="attention")
    assert report.functions == ["0"] and list(report.left) == ["0.out_dropout"]
    last = model(torch.ones(64, requires_grad=True)).grad_fn
    assert type(last).__name__ == "MulBackward0"
    assert last.next_functions[0][0].name().endswith("PackedDropoutBackward")


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (nn.Linear(2, 2), "no dropout is seen in it"),
        (nn.Sequential(nn.Dropout2d(0.1)), "drops channels"),
        (nn.Sequential(nn.LSTM(2, 2, 2, dropout=0.1)), "inside its own kernel"),
        (nn.LSTM(2, 2, 2, dropout=0.1), "the model: LSTM drops inside its own kernel"),
        (nn.Dropout2d(0.1), "the model: Dropout2d drops channels"),
    ],
)
def test_raises_when_there_is_nothing_to_replace(model: nn.Module, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        replace_dropout(model, PackedDropout)


def test_unknown_place() -> None:
    with pytest.raises(ValueError, match="allowed are all, attention, hidden"):
        replace_dropout(nn.Sequential(nn.Dropout()), PackedDropout, where="mlp")  # type: ignore[arg-type]
