"""Whatever runs a forward again runs it under its route: gradients are those without a checkpoint, bit for bit."""

import functools
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import transformers as hf
from torch import Tensor, nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
from torch.utils.checkpoint import checkpoint

from pmexp.packed_dropout import PackedDropout, replace_dropout
from pmexp.systems.checkpointing import checkpoint_layers

RATE = 0.25
IDS: dict[str, Any] = {"vocab_size": 50, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
BERT = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
BART = {f"{side}_{what}": 1 for side in ("encoder", "decoder") for what in ("layers", "ffn_dim")} | {
    f"{side}_attention_heads": 2 for side in ("encoder", "decoder")
}
BART |= {"d_model": 16, "max_position_embeddings": 64}
SPEECH = {"num_conv_layers": 1, "conv_channels": 8, "input_feat_per_channel": 4, "conv_kernel_sizes": [3]}
SPEECH |= {"max_source_positions": 64, "max_target_positions": 64}

MODELS: dict[str, tuple[Any, Any, tuple[str, ...]]] = {
    "bart": (hf.BartModel, hf.BartConfig(**IDS, **BART), ("input_ids", "decoder_input_ids")),
    "mbart": (hf.MBartModel, hf.MBartConfig(**IDS, **BART), ("input_ids", "decoder_input_ids")),
    "blenderbot-small": (hf.BlenderbotSmallModel, hf.BlenderbotSmallConfig(**IDS, **BART), ("input_ids", "decoder_input_ids")),
    "led": (
        hf.LEDModel,
        hf.LEDConfig(**IDS, **{**BART, "max_position_embeddings": 1}, attention_window=[4], max_encoder_position_embeddings=64, max_decoder_position_embeddings=64),
        ("input_ids", "decoder_input_ids"),
    ),
    "speech2text": (hf.Speech2TextModel, hf.Speech2TextConfig(**IDS, **{k: v for k, v in BART.items() if k != "max_position_embeddings"}, **SPEECH), ("input_features", "decoder_input_ids")),
    "opt": (hf.OPTModel, hf.OPTConfig(**IDS, hidden_size=16, num_hidden_layers=2, ffn_dim=16, num_attention_heads=2, max_position_embeddings=64, word_embed_proj_dim=16), ("input_ids",)),
    "biogpt": (hf.BioGptModel, hf.BioGptConfig(**IDS, **BERT), ("input_ids",)),
    "bert": (hf.BertModel, hf.BertConfig(**IDS, **BERT), ("input_ids",)),
    "t5": (hf.T5Model, hf.T5Config(**IDS, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2), ("input_ids", "decoder_input_ids")),
}  # fmt: skip
MODES = {"": False, "checkpoint": False, "reentrant": True}


@pytest.fixture(scope="module")
def stock() -> Callable[[str], list[Tensor]]:
    return functools.cache(lambda name: training_step(name))


def training_step(name: str, checkpointed: str = "", **options: Any) -> list[Tensor]:
    """Output and gradients of one step."""
    cls, config, inputs = MODELS[name]
    for key, value in config.to_dict().items():
        if isinstance(value, float) and "drop" in key and "layerdrop" not in key:
            setattr(config, key, RATE)
    config._attn_implementation, config.use_cache = "eager", False
    torch.manual_seed(0)
    model = cls(config).train()
    if options:
        replace_dropout(model, PackedDropout, **options)
    if checkpointed:
        checkpoint_layers(model, MODES[checkpointed])
        model.enable_input_require_grads()
    given = {
        "input_ids": torch.arange(3, 19).view(2, 8),
        "decoder_input_ids": torch.arange(10, 26).view(2, 8),
    }
    given["input_features"] = torch.linspace(-1, 1, 2 * 8 * 4).view(2, 8, 4).requires_grad_()
    torch.manual_seed(7)
    output = model(**{key: given[key] for key in inputs}).last_hidden_state
    output.square().mean().backward()
    return [output, *(p.grad for p in model.parameters() if p.grad is not None)]


def assert_same(ours: list[Tensor], theirs: list[Tensor]) -> None:
    assert len(ours) == len(theirs)
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("checkpointed", MODES)
@pytest.mark.parametrize("name", MODELS)
def test_transformers_own_checkpointing_gives_stock_gradients(
    name: str, checkpointed: str, stock: Callable[[str], list[Tensor]]
) -> None:
    assert_same(training_step(name, checkpointed, rng="torch"), stock(name))


@pytest.mark.parametrize("name", ["bart", "opt", "bert"])
def test_transformers_own_checkpointing_with_our_own_masks(name: str) -> None:
    plain = training_step(name, "", rng="philox")
    for checkpointed in ("checkpoint", "reentrant"):
        assert_same(training_step(name, checkpointed, rng="philox"), plain)
        assert_same(training_step(name, checkpointed, rng="philox", recompute=True), plain)


def is_packed(y: Tensor) -> bool:
    return y.grad_fn.name().endswith("PackedDropoutBackward")


class _Block(nn.Module):
    """F.dropout in its forward, in a method and in a local function, as `part` says."""

    def __init__(self, part: str) -> None:
        super().__init__()
        self.linear, self.part = nn.Linear(8, 8), part

    def forward(self, x: Tensor, rerun: Any = None) -> Tensor:
        if self.part == "forward":
            return F.dropout(self.linear(x), RATE, self.training)
        part = (
            self.in_method
            if self.part == "method"
            else lambda x: F.dropout(self.linear(x), RATE, self.training)
        )
        return F.dropout(rerun(part, x) if rerun else part(x), RATE, self.training)

    def in_method(self, x: Tensor) -> Tensor:
        return F.dropout(self.linear(x), RATE, self.training)


def _forward_given(block: nn.Module, x: Tensor, reentrant: bool) -> Any:
    return checkpoint(block.forward, x, use_reentrant=reentrant)


def _class_forward_given(block: nn.Module, x: Tensor, reentrant: bool) -> Any:
    return checkpoint(type(block).forward, block, x, use_reentrant=reentrant)


def _wrapped(block: nn.Module, x: Tensor, reentrant: bool) -> Any:
    return checkpoint_wrapper(block, checkpoint_fn=functools.partial(checkpoint, use_reentrant=reentrant))(x)


def _part_given(block: nn.Module, x: Tensor, reentrant: bool) -> Any:
    return block(x, functools.partial(checkpoint, use_reentrant=reentrant))


def _forward_in_function(block: nn.Module, x: Tensor, reentrant: bool) -> Any:
    return checkpoint(lambda x: block.forward(x) * 2, x, use_reentrant=reentrant) / 2


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("rng", ["torch", "philox"])
@pytest.mark.parametrize(
    ("part", "run"),
    [
        ("forward", _forward_given),
        ("forward", _class_forward_given),
        ("forward", _wrapped),
        ("forward", _forward_in_function),
        ("method", _part_given),
        ("local function", _part_given),
    ],
)
def test_any_way_to_run_a_forward_again(part: str, run: Any, rng: str, reentrant: bool) -> None:
    """Each output is its own scaled mask; its gradient must be that very mask."""
    block = _Block(part)
    replace_dropout(block, PackedDropout, rng=rng)
    nn.init.eye_(block.linear.weight)
    nn.init.zeros_(block.linear.bias)
    x = torch.ones(50, 8, requires_grad=True)
    y = run(block, x, reentrant)
    y.sum().backward()
    assert (y == 0).any() and torch.equal(x.grad, y)


@pytest.mark.parametrize(("part", "packed"), [("method", True), ("local function", False)])
def test_what_a_checkpoint_would_run_again_without_a_route_stays_stock(part: str, packed: bool) -> None:
    block, kinds = _Block(part), []
    replace_dropout(block, PackedDropout)
    x = torch.ones(50, 8, requires_grad=True)
    block(x, lambda part, x: kinds.append(is_packed(checkpoint(part, x, use_reentrant=False))) or x)
    assert kinds == [packed]


class _Recursive(nn.Module):
    def forward(self, x: Tensor, depth: int = 2) -> Tensor:
        return F.dropout(self(x, depth - 1) if depth else x, RATE, self.training)


class _Failing(_Recursive):
    def forward(self, x: Tensor, depth: int = 2) -> Tensor:
        super().forward(x, depth)
        raise RuntimeError("on purpose")


class _Yielding(_Recursive):
    def forward(self, x: Tensor, depth: int = 2) -> Any:
        yield F.dropout(x, RATE, self.training)
        yield F.dropout(x, RATE, self.training)


class _TakingAGradient(_Recursive):
    """Runs a backward, and with it a checkpoint's recomputation, inside of its forward."""

    def forward(self, x: Tensor, depth: int = 2) -> Tensor:
        y = checkpoint(super().forward, x, 0, use_reentrant=False)
        (slope,) = torch.autograd.grad(y.sum(), x, retain_graph=True)
        return F.dropout(slope * y, RATE, self.training)


@pytest.mark.parametrize("cls", [_Recursive, _Failing, _Yielding, _TakingAGradient])
def test_no_route_stays_behind(cls: Any) -> None:
    x, model = torch.ones(64, requires_grad=True), cls()
    replace_dropout(nn.Sequential(nn.Dropout(RATE), model), PackedDropout)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="on purpose") if cls is _Failing else nullcontext():
            y = model(x)
            assert all(not is_packed(part) for part in y) if cls is _Yielding else is_packed(y)
        assert not is_packed(F.dropout(x, RATE))
    if cls is _Yielding:  # between two of its steps
        next(model(x))
        assert not is_packed(F.dropout(x, RATE))


def test_threads_that_run_one_model_keep_to_their_own_routes() -> None:
    class Meeting(nn.Module):
        def forward(self, x: Tensor, first: bool) -> Tensor:
            both_inside.wait()
            if not first:
                first_is_out.wait()
            y = F.dropout(x, RATE, self.training)
            both_dropped = first_is_out if first else threading.Event()
            both_dropped.set()
            return y

    both_inside, first_is_out = threading.Barrier(2), threading.Event()
    model, x = Meeting(), torch.ones(64, requires_grad=True)
    replace_dropout(model, PackedDropout, recompute=True)
    with ThreadPoolExecutor(2) as pool:
        running = [
            pool.submit(lambda first: (model(x, first), F.dropout(x, RATE)), first) for first in (True, False)
        ]
        for inside, after in (each.result(timeout=60) for each in running):
            assert is_packed(inside) and not is_packed(after)


class Inner(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.drop, self.second = nn.Linear(8, 8), nn.Dropout(RATE), nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.second(self.drop(self.first(x).relu()))
        return y


class HoldsInput(nn.Module):
    """Drops in front of a checkpointed layer, as T5 does, while its forward holds what it drops."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.embed, self.drop, self.layer = nn.Linear(8, 8), nn.Dropout(RATE), Inner()

    def forward(self, x: Tensor, checkpointed: bool) -> Tensor:
        held = self.embed(x)
        dropped = self.drop(held)
        run = functools.partial(checkpoint, self.layer, use_reentrant=False) if checkpointed else self.layer
        y: Tensor = run(dropped)
        return y


def test_what_only_the_forward_holds_is_not_looked_for_when_a_checkpoint_runs_again() -> None:
    """Else the mask was applied to the dropped tensor: the checkpoint's two runs saved different tensors in one place."""
    results = []
    for recompute, checkpointed in ((False, False), (True, False), (True, True)):
        model = HoldsInput()
        replace_dropout(model, PackedDropout, recompute=recompute)
        for _ in range(
            2
        ):  # the first backward of a model compares what it makes again, and later ones do not
            model.zero_grad()
            torch.manual_seed(7)
            y = model(torch.linspace(-1, 1, 32).view(4, 8), checkpointed)
            y.square().sum().backward()
        results.append(
            [y, *(parameter.grad for parameter in model.parameters() if parameter.grad is not None)]
        )
    for result in results[1:]:
        assert_same(result, results[0])
