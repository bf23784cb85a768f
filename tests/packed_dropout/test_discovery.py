"""Dropout that no reading of the code shows is found by the first forward, and by a dry one: routed or named."""

import copy
import functools
import pickle
import random
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import transformers as hf
from torch import Tensor, nn
from torch.nn.functional import dropout as under_another_name
from torch.utils.checkpoint import checkpoint

from pmexp.packed_dropout import PackedDropout, ReplacementReport, replace_dropout
from pmexp.packed_dropout.discovery import other_draws, unnamed_draws
from pmexp.variants.seeded import SeededDropout
from saved_tensors import saved_by

P = 0.25
PARTIAL = functools.partial(F.dropout, p=P)
IN_A_LIST, IN_A_DICT = [F.dropout], {"drop": torch.dropout}


def _helper(x: Tensor) -> Tensor:
    return _helper_of_helper(x)


def _helper_of_helper(x: Tensor) -> Tensor:
    return under_another_name(x, P)


class Own(nn.Module):
    """Has `drops` for its forward, at the end of which there is something to multiply, as there is in a model."""

    def __init__(self, drops: Callable[..., Tensor]) -> None:
        super().__init__()
        self.drops, self.weight = drops, nn.Parameter(torch.ones(8))

    def forward(self, x: Tensor) -> Tensor:
        return self.drops(self, x * self.weight)


def _import_inside(_: Own, x: Tensor) -> Tensor:
    from torch.nn.functional import dropout as inner

    return inner(x, P)


class _Xdropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(mask := torch.empty_like(x).bernoulli_(0.5))
        return x * mask

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad * ctx.saved_tensors[0]


def _scripted() -> nn.Module:
    class Scripted(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.dropout(x, 0.25, True)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.script(Scripted())


class Functional(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(x, P)


def _traced() -> nn.Module:
    return torch.fx.symbolic_trace(Functional())


def _recorded() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.trace(Functional(), x(), check_trace=False)


class WithMethod(Own):
    def forward(self, x: Tensor) -> Tensor:
        return self.encode(x * self.weight)

    def encode(self, x: Tensor) -> Tensor:
        return under_another_name(x, P)


STOCK_DROPOUT, STOCK_DROPOUTS = nn.Dropout(P), [nn.Dropout(P)]
ROUTED: dict[str, Callable[[], nn.Module]] = {
    "torch.dropout": lambda: Own(lambda self, x: torch.dropout(x, P, True)),
    "torch.dropout by names": lambda: Own(lambda self, x: torch.dropout(input=x, p=P, train=True)),
    "torch.dropout_": lambda: Own(lambda self, x: torch.dropout_(x, P, True)),
    "another name": lambda: Own(lambda self, x: under_another_name(x, P)),
    "partial": lambda: Own(lambda self, x: PARTIAL(x)),
    "a list": lambda: Own(lambda self, x: IN_A_LIST[0](x, P)),
    "a dictionary": lambda: Own(lambda self, x: IN_A_DICT["drop"](x, P, True)),
    "import inside": lambda: Own(_import_inside),
    "helper of a helper": lambda: Own(lambda self, x: _helper(x)),
    "module in a closure": lambda: Own(lambda self, x: STOCK_DROPOUT(x)),
    "module in a list": lambda: Own(lambda self, x: STOCK_DROPOUTS[0](x)),
    "module made on the way": lambda: Own(lambda self, x: nn.Dropout(P)(x)),
    "another method": lambda: WithMethod(lambda self, x: x),
    "getattr": lambda: Own(lambda self, x: getattr(F, "drop" + "out")(x, P)),
    "torch.fx": lambda: nn.Sequential(_traced()),
}


def _attend(x: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(x, x, x, dropout_p=P)


NAMED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "native_dropout": (lambda: Own(lambda self, x: torch.native_dropout(x, P, True)[0]), "native_dropout"),
    "feature_dropout": (lambda: Own(lambda self, x: F.dropout1d(x, P)), "dropout1d"),
    "dropout2d": (lambda: Own(lambda self, x: F.dropout2d(x.view(4, 8, 4, 2), P).view(4, 8, 8)), "dropout2d"),
    "alpha_dropout": (lambda: Own(lambda self, x: F.alpha_dropout(x, P, True)), "alpha_dropout"),
    "bernoulli": (lambda: Own(lambda self, x: x * torch.bernoulli(torch.full_like(x, 0.5))), "bernoulli"),
    "bernoulli_": (lambda: Own(lambda self, x: x * torch.empty_like(x).bernoulli_(0.5)), "bernoulli_"),
    "rand": (lambda: Own(lambda self, x: x * (torch.rand(8) > 0.5)), "rand"),
    "own autograd function": (lambda: Own(lambda self, x: _Xdropout.apply(x)), "bernoulli_"),
    "sdpa in a checkpointed function": (lambda: Own(lambda self, x: checkpoint(_attend, x, use_reentrant=False)), "scaled_dot_product_attention draws inside its kernel"),
    "scripted": (lambda: nn.Sequential(_scripted()), "aten"),
    "recorded": (lambda: nn.Sequential(_recorded()), "aten"),
    "in a checkpointed function": (lambda: Own(lambda self, x: checkpoint(lambda x: F.dropout(x, P), x, use_reentrant=False)), "a function given to a checkpoint"),
}  # fmt: skip


def x() -> Tensor:
    return torch.ones(4, 8, 8, requires_grad=True)


def replaced(model: nn.Module, dry: bool, **options: Any) -> ReplacementReport:
    """The settled report, by a dry run or by a first forward."""
    example = {"example": (x(),)} if dry else {}
    report = replace_dropout(model, PackedDropout, **example, **options)
    if not dry:
        assert not report.settled and "not settled" in str(report)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=r"replace_dropout\(.*found nothing to replace")
            model(x())
    assert report.settled and "not settled" not in str(report)
    return report


def _hooked() -> nn.Module:
    linear = nn.Linear(8, 8)
    linear.register_forward_hook(lambda module, args, y: PARTIAL(y, training=module.training))
    return linear


@pytest.mark.parametrize("dry", [False, True])
@pytest.mark.parametrize(
    "layer",
    [_hooked, lambda: nn.TransformerEncoderLayer(8, 2, 8, 0.0, lambda x: PARTIAL(x), batch_first=True)],
)
def test_functions_given_to_modules_of_torch_are_looked_at(layer: Any, dry: bool) -> None:
    report = replaced(nn.Sequential(layer(), nn.Dropout(P)), dry)
    assert len(report.functions) == 1 and "1" in report.modules


class Shared(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = self.second = nn.Dropout(P)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(x)


@pytest.mark.parametrize("dry", [False, True])
def test_a_dropout_under_two_names_is_called_under_both(dry: bool) -> None:
    report = replaced(nn.Sequential(WithMethod(lambda self, x: x), Shared()), dry)
    assert report.modules == ["1.first", "1.second"] and report.uncalled == []


@pytest.mark.parametrize("dry", [False, True])
@pytest.mark.parametrize("hidden", ROUTED)
def test_hidden_functional_dropout_is_routed(hidden: str, dry: bool) -> None:
    model = nn.Sequential(ROUTED[hidden](), nn.Dropout(P))
    place = "0.0" if hidden == "torch.fx" else "0"
    report = replaced(model, dry)
    assert (
        report.functions == [place]
        and report.modules == ["1"]
        and report.left == {}
        and report.uncalled == []
    )
    saved: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        model(x())
    assert [t.numel() for t in saved if t.dtype == torch.uint8] == [32, 32]


class SomebodysDropout(nn.Dropout):
    """Drops with code and random numbers outside of our package."""

    def forward(self, x: Tensor) -> Tensor:
        return self.drop(x, self.p, self.training)

    def drop(self, input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
        return torch.native_dropout(input, p, training)[0]


@pytest.mark.parametrize("dropout", [SomebodysDropout, SeededDropout])
def test_another_dropout_is_told_from_masks_of_others(dropout: Any) -> None:
    model = nn.Sequential(ROUTED["another name"](), nn.Dropout(P), WithMethod(lambda self, x: x))
    for example in (None, (x(),)):
        report = replace_dropout(model, dropout, example=example)
        model(x())
        assert (report.modules, report.functions) == (["1"], ["0", "2"])
        assert report.left == {} and report.uncalled == []
        with other_draws(model, report) as draws:
            model(x())
            x() * torch.rand(8)
        assert unnamed_draws(draws, report) == [f"the model: {draws[0]}"] and "rand" in str(draws[0])


@pytest.mark.parametrize("hidden", ROUTED)
def test_the_first_forward_draws_as_every_later_one(hidden: str) -> None:
    stock, model = ROUTED[hidden](), ROUTED[hidden]()
    replace_dropout(model, PackedDropout, rng="torch")
    for _ in range(2):
        torch.manual_seed(3)
        expected = stock(x())
        torch.manual_seed(3)
        assert torch.equal(model(x()), expected)


@pytest.mark.parametrize("dry", [False, True])
@pytest.mark.parametrize("hidden", NAMED)
def test_what_cannot_be_routed_is_named_with_its_line(hidden: str, dry: bool) -> None:
    make, by = NAMED[hidden]
    model = nn.Sequential(make(), nn.Dropout(P))
    report = replaced(model, dry)
    compiled = hidden in ("scripted", "recorded")
    place = "0.0" if compiled else "0"
    assert list(report.left) == [place] and by in report.left[place]
    assert "test_discovery.py:" in report.left[place] or compiled


@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))], ids=["copy", "pickle"]
)
@pytest.mark.parametrize("ran", [False, True])
@pytest.mark.parametrize("make", [WithMethod, _traced], ids=["module", "torch.fx"])
def test_copies_find_and_keep_it_for_themselves(make: Any, ran: bool, copied: Any) -> None:
    model = make(None) if make is WithMethod else nn.Sequential(make())
    replace_dropout(model, PackedDropout)
    if ran:
        model(x())
    twin = copied(model)
    for _ in range(2):
        assert "Packed" in twin(x()).grad_fn.name()
    replace_dropout(model, nn.Dropout)
    assert "Packed" in twin(x()).grad_fn.name()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert "Packed" not in model(x()).grad_fn.name()


def test_a_copied_part_of_a_watched_model_is_that_part_alone() -> None:
    model = nn.Sequential(WithMethod(lambda self, x: x), nn.Linear(300, 300))
    replace_dropout(model, PackedDropout)
    assert len(pickle.dumps(copy.deepcopy(WithMethod(None)))) * 3 > len(
        pickle.dumps(_without_lambda(model[0]))
    )


def _without_lambda(module: nn.Module) -> nn.Module:
    module.drops = None
    return module


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("hidden", ["another name", "module made on the way", "torch.dropout_"])
def test_the_first_step_may_be_checkpointed(hidden: str, reentrant: bool) -> None:
    model = nn.Sequential(ROUTED[hidden]())
    replace_dropout(model, PackedDropout)
    for _ in range(2):
        given = x()
        y = checkpoint(model[0], given, use_reentrant=reentrant)
        y.sum().backward()
        assert (y == 0).any() and torch.equal(given.grad, y)


class _Everything(nn.Module):
    """Changes what a forward may change: a buffer, a gradient, an attribute, and generators three."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.seen, self.drop = nn.BatchNorm1d(8), [], nn.Dropout(P)

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(x)
        return self.drop(self.norm(x)) * random.random() * np.random.rand() + torch.rand(8) + torch.randn(8)


def test_a_dry_run_changes_nothing() -> None:
    model = _Everything().eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    report = replace_dropout(model, PackedDropout, example={"x": x()})
    assert report.settled and list(report.left) == [""] and "rand draws" in report.left[""]
    assert model.seen == [] and not model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(torch.get_rng_state(), states[0]) and random.getstate() == states[1]
    assert np.random.get_state()[1].tolist() == states[2]


class _AsksForValues(Own):
    def forward(self, x: Tensor) -> Tensor:
        return under_another_name(x * self.weight, P) if x.sum() > 0 else x


def test_a_model_that_asks_for_values_is_settled_by_its_first_real_forward() -> None:
    model = _AsksForValues(lambda self, x: x)
    report = replace_dropout(model, PackedDropout, example=(x(),))
    assert not report.settled
    model.eval()(x())
    assert not report.settled
    model.train()(x())
    assert report.settled and report.functions == [""]
    model(x())
    assert report.functions == [""]


def test_watched_modules_are_what_they_were_once_they_ran() -> None:
    class Plain(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * 2

    model = nn.Sequential(Plain(), nn.Dropout(P))
    replace_dropout(model, PackedDropout)
    assert isinstance(model[0], Plain) and type(model[0]).__name__ == "Plain"
    for example in (None, (x(),)):
        replace_dropout(model, SeededDropout, example=example)
        assert (type(model[0]) is Plain) == (example is not None)
        model(x())
        assert type(model[0]) is Plain and type(model) is nn.Sequential


def test_what_was_exchanged_and_not_called_is_named() -> None:
    class Unused(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.unused, self.at_rate_0 = nn.Dropout(P), nn.Dropout(P), nn.Dropout(0.0)

        def forward(self, x: Tensor) -> Tensor:
            return self.used(x)

    for dropout in (PackedDropout, SeededDropout, nn.Dropout):
        report = replace_dropout(Unused(), dropout, example=(x(),))
        assert report.uncalled == ["unused"] and "unused: exchanged, but no draw of it was seen" in str(
            report
        )


def test_a_model_without_dropout_is_said_to_have_none_only_when_it_has_run() -> None:
    with pytest.raises(ValueError, match="no dropout is seen in it"):
        replace_dropout(Own(lambda self, x: x), PackedDropout, example=(x(),))
    model = Own(lambda self, x: x)
    assert "no dropout" not in str(replace_dropout(model, PackedDropout))
    with pytest.warns(UserWarning, match="found nothing to replace in Own: no dropout is seen in it"):
        model(x())
    model(x())  # and never again


@pytest.mark.parametrize(
    ("where", "functions"), [("all", ["0", "1"]), ("attention", ["1"]), ("hidden", ["0"])]
)
def test_found_dropout_keeps_to_its_place(where: Any, functions: list[str]) -> None:
    class OwnAttention(Own):
        pass

    model = nn.Sequential(ROUTED["another name"](), OwnAttention(lambda self, x: under_another_name(x, P)))
    for dry in (False, True):
        report = replaced(copy.deepcopy(model), dry, where=where)
        assert report.functions == functions
        assert report.left == {name: f"where={where}" for name in ("0", "1") if name not in functions}


def test_a_module_that_torch_compiled_is_left_to_the_dry_run() -> None:
    model = nn.Sequential(ROUTED["another name"](), nn.Dropout(P))
    model[0].compile(backend="eager")
    report = replace_dropout(model, PackedDropout)
    model(x())
    assert not report.settled
    assert replace_dropout(model, PackedDropout, example=(x(),)).functions == ["0"]


TINY = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "vocab_size": 50,
}


def test_attention_dropout_that_is_configured_and_never_called_is_said() -> None:
    config = hf.BigBirdConfig(
        **TINY, attention_type="block_sparse", block_size=4, num_random_blocks=1, max_position_embeddings=64
    )
    model = hf.BigBirdModel(config).train()
    report = replace_dropout(model, PackedDropout)
    model(torch.arange(48).view(1, 48))
    said = "0.1 is configured, and no dropout was called in attention"
    assert report.left["config.attention_probs_dropout_prob"] == said


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_transformers_attention_is_settled_dry(attention: str) -> None:
    model = hf.BertModel(hf.BertConfig(**TINY, attn_implementation=attention)).train()
    report = replace_dropout(model, PackedDropout, example={"input_ids": torch.arange(8).view(1, 8)})
    place = "encoder.layer.0.attention.self"
    assert report.settled and len(report.modules) == 3 and report.uncalled == []
    assert report.left == {} and report.functions == ([place] if attention == "eager" else [])
    assert report.attention == ({} if attention == "eager" else {place: "math kernel on cpu"})


def test_a_layer_that_is_dropped_at_random_does_not_stop_a_dry_run() -> None:
    sizes = {
        f"{side}_{what}": 1
        for side in ("encoder", "decoder")
        for what in ("layers", "ffn_dim", "attention_heads")
    }
    model = hf.BartModel(hf.BartConfig(vocab_size=50, d_model=16, **sizes, encoder_layerdrop=0.5)).train()
    report = replace_dropout(model, PackedDropout, example={"input_ids": torch.arange(3, 11).view(1, 8)})
    assert report.settled and len(report.functions) == 4


def test_sew_d_draws_its_own_masks() -> None:
    config = hf.SEWDConfig(**TINY, conv_dim=(8,), conv_kernel=(4,), conv_stride=(2,), num_conv_pos_embeddings=4, num_conv_pos_embedding_groups=2, squeeze_factor=1, apply_spec_augment=False, activation_dropout=0.1, hidden_dropout=0.1)  # fmt: skip
    model = hf.SEWDModel(config).train()
    report = replace_dropout(model, PackedDropout)
    model(torch.randn(1, 64))
    assert report.settled and any("modeling_sew_d.py" in reason for reason in report.left.values())


class DropPathMLP(nn.Module):
    """Has a name that says nothing of what it drops."""

    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(x, P)


class Skipped(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * torch.empty(len(x), 1, 1).bernoulli_(1 - P)


@pytest.mark.parametrize("samples", [1, 4])
@pytest.mark.parametrize("dry", [False, True])
def test_dropping_whole_samples_is_known_by_the_draw_and_not_by_a_name(dry: bool, samples: int) -> None:
    model = nn.Sequential(nn.Linear(8, 8), DropPathMLP(), Skipped())
    report = replaced(model, dry)
    model(x()[:samples])
    assert report.functions == ["1"] and list(report.left) == ["2"]
    assert "draws one number a sample" in report.left["2"] and "test_discovery.py" in report.left["2"]


def test_stock_dropout_in_a_model_of_functions_alone_is_no_failure() -> None:
    report = replace_dropout(WithMethod(lambda self, x: x), nn.Dropout, example=(x(),))
    assert (
        report.left == {"": "functional calls are nn.Dropout's own"} and report.nothing_found("Model") is None
    )


@pytest.mark.parametrize("dry", [False, True])
def test_attention_that_only_running_shows_is_routed_from_the_first_forward_on(dry: bool) -> None:
    stock = Own(lambda self, x: _attend(x))
    model: Any = nn.Sequential(Own(lambda self, x: _attend(x)), nn.Identity())
    report = replaced(model, dry, rng="torch")
    for _ in range(2):
        torch.manual_seed(3)
        expected = stock(x())
        torch.manual_seed(3)
        y, saved = saved_by(lambda: model(x()))
        assert torch.equal(y, expected)
        assert [t.numel() for t in saved if t.dtype == torch.uint8] == [4 * 8 * 8 // 8]
    assert report.settled and report.attention == {"0": "math kernel on cpu"} and report.left == {}
