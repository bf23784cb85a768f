"""Checks masks where torch runs the forward in a way of its own: CUDA graphs, streams, checkpoints,
torch.compile.

Inputs are ones, so that an output is its own scaled mask and the gradient of its sum.
"""

import os
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from pmexp.bench.gpu.bench import Bench
from pmexp.bench.gpu.equality import Dropout, check_all, difference, gradient_of, share_alike
from pmexp.packed_dropout import PackedDropout, packed_dropout
from pmexp.variants.seeded import seeded_dropout

DROPOUTS: dict[str, Dropout] = {
    "packed": packed_dropout,
    "packed, rng=torch": partial(packed_dropout, rng="torch"),
    "seeded": seeded_dropout,
}
_NUMEL = 65536
_INDEPENDENT = 0.02  # from 0.5: ten times the standard error at _NUMEL elements


def check_checkpointing(bench: Bench) -> None:
    """Checks that backward draws the forward's mask again, in both modes."""
    for name, drop in DROPOUTS.items():
        for reentrant in (False, True):
            what = f"checkpointing, {name}, use_reentrant={reentrant}"
            with bench.part(what):
                x = _ones(bench)
                y = checkpoint(lambda t, drop=drop: drop(t) * 1.0, x, use_reentrant=reentrant)
                y.sum().backward()  # what is reentrant takes no torch.autograd.grad
                assert x.grad is not None
                check_all(bench, what, [("gradient", x.grad, y)])


def check_graphs(bench: Bench) -> None:
    """Checks that replays of a captured step draw new masks, and the same ones from the same seed."""
    if bench.device.type != "cuda":
        bench.left_out("CUDA graphs: there are none on the CPU")
        return
    for name, drop in DROPOUTS.items():
        with bench.part(f"CUDA graph, {name}"):
            _check_graph(bench, name, drop)
    with bench.part("CUDA graph, rng=torch against nn.Dropout"):
        ours, stock = (
            _replayed(drop, _ones(bench))[2] for drop in (DROPOUTS["packed, rng=torch"], F.dropout)
        )
        check_all(bench, "a captured rng=torch is a captured nn.Dropout", [("output", ours, stock)])
    with bench.part("CUDA graphs that share a pool"):
        _check_shared_pool(bench)
    with bench.part("make_graphed_callables"):
        _check_graphed_module(bench)


def check_streams(bench: Bench) -> None:
    """Checks that two streams at a time give the masks that one gives."""
    if bench.device.type != "cuda":
        bench.left_out("streams: there are none on the CPU")
        return
    for name, drop in DROPOUTS.items():
        with bench.part(f"streams, {name}"):
            side = [torch.cuda.Stream(bench.device) for _ in range(2)]
            right = _on_streams(bench, drop, [torch.cuda.current_stream(bench.device)] * 2)
            got = _on_streams(bench, drop, side)
            named = (f"{i}" for i in range(len(right)))
            check_all(bench, f"two streams, {name}", list(zip(named, got, right, strict=True)))


def check_compiled(bench: Bench, name: str, mode: str) -> None:
    """Checks that two places of a compiled graph draw two masks, new ones each call.

    mode=reduce-overhead makes CUDA graphs of it. On the CPU it runs without inductor, whose C++ takes long
    to compile.
    """
    if mode != "default" and bench.device.type != "cuda":
        bench.left_out(f"torch.compile, {name}, mode={mode}: there are no CUDA graphs on the CPU")
        return
    drop = DROPOUTS[name]
    os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")  # to start processes takes longer
    torch.compiler.reset()
    chosen: dict[str, Any] = {"mode": mode} if bench.device.type == "cuda" else {"backend": "aot_eager"}
    run = torch.compile(lambda t: (drop(t), drop(t)), fullgraph=True, **chosen)
    what, x, before = f"torch.compile, {name}, mode={mode}", _ones(bench), None
    wrong = []
    for call in range(4):  # CUDA graphs are recorded in the second call
        if bench.device.type == "cuda":
            torch.compiler.cudagraph_mark_step_begin()
        first, second = run(x)
        both = first + 4 * second
        gradient = gradient_of_sum(both, x)
        if text := difference(gradient, both):
            wrong.append(f"call {call}, gradient: {text}")
        others = {"two places": second.detach()} | ({"two calls": before} if before is not None else {})
        for case, other in others.items():
            if abs((alike := share_alike(first.detach(), other)) - 0.5) > _INDEPENDENT:
                wrong.append(f"call {call}, masks of {case}: {alike:.3f} alike")
        before = first.detach().clone()
    bench.check(what, not wrong, "; ".join(wrong))


def gradient_of_sum(y: Tensor, x: Tensor) -> Tensor:
    return gradient_of(y, x, torch.ones_like(y))


def _ones(bench: Bench) -> Tensor:
    return torch.ones(_NUMEL, device=bench.device, requires_grad=True)


def _captured(drop: Dropout, x: Tensor, pool: Any = None) -> tuple[torch.cuda.CUDAGraph, Tensor, Tensor]:
    """Returns a graph of forward and backward, its output and its gradient. Kernels are loaded before it
    begins."""
    stream = torch.cuda.Stream(x.device)
    stream.wait_stream(torch.cuda.current_stream(x.device))
    with torch.cuda.stream(stream):
        for _ in range(3):
            gradient_of_sum(drop(x), x)
    torch.cuda.current_stream(x.device).wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, pool=pool):
        y = drop(x)
        gradient = gradient_of_sum(y, x)
    return graph, y.detach(), gradient


def _replayed(drop: Dropout, x: Tensor) -> list[Tensor]:
    """Returns the outputs of four replays, the last two from one seed. Raises where a gradient is not by its
    mask."""
    graph, y, gradient = _captured(drop, x)
    outputs = []
    for seed in (None, None, 5, 5):
        if seed is not None:
            torch.manual_seed(seed)
        graph.replay()
        if wrong := difference(gradient, y):
            raise AssertionError(f"the gradient of a replay is not by its mask: {wrong}")
        outputs.append(y.clone())
    return outputs


def _check_graph(bench: Bench, name: str, drop: Dropout) -> None:
    outputs = _replayed(drop, _ones(bench))
    _check_independent(bench, f"CUDA graph, {name}: a new mask each replay", *outputs[:2])
    what = f"CUDA graph, {name}: the same masks from the same seed"
    check_all(bench, what, [("output", outputs[2], outputs[3])])


def _check_shared_pool(bench: Bench) -> None:
    """Checks graphs that share memory, where the second may reuse what the first let go."""
    pool, x, y = torch.cuda.graph_pool_handle(), _ones(bench), _ones(bench)
    graphs = [_captured(packed_dropout, t, pool) for t in (x, y)]
    compared = []
    for turn in range(2):
        for graph, output, gradient in graphs:
            graph.replay()
            compared.append((f"turn {turn}", gradient.clone(), output.clone()))
    check_all(bench, "CUDA graphs that share a pool: gradients are by their own masks", compared)


def _check_graphed_module(bench: Bench) -> None:
    """Checks torch's own way to make graphs of a module: one of its forward, one of its backward."""
    x = _ones(bench)
    graphed: Any = torch.cuda.make_graphed_callables(PackedDropout(0.5), (x,))
    outputs, gradients = [], []
    for _ in range(2):
        y = graphed(x)
        outputs.append(y.detach().clone())
        gradients.append(gradient_of_sum(y, x).clone())
    named = zip(("first call", "second call"), gradients, outputs, strict=True)
    check_all(bench, "make_graphed_callables: gradients are by the mask of their forward", named)
    _check_independent(bench, "make_graphed_callables: a new mask each call", *outputs)


def _check_independent(bench: Bench, what: str, first: Tensor, second: Tensor) -> None:
    alike = share_alike(first, second)
    bench.check(what, abs(alike - 0.5) < _INDEPENDENT, f"{alike:.3f} of the bits alike")


def _on_streams(bench: Bench, drop: Dropout, streams: list[Any]) -> list[Tensor]:
    """Returns outputs and gradients of eight dropouts that take turns on the streams."""
    torch.manual_seed(3)
    x = _ones(bench)
    torch.cuda.synchronize(bench.device)
    tensors: list[Tensor] = []
    for i in range(8):
        with torch.cuda.stream(streams[i % 2]):
            y = drop(x)
            tensors += [y.detach(), gradient_of_sum(y, x)]
    torch.cuda.synchronize(bench.device)
    return tensors
