"""GELU's Triton kernels, interpreted, and the CPU core's against its torch operators, bit for bit under correctly
rounded roots; and what the compiler makes of the Triton kernels for a GPU that need not be there."""

import importlib.util
from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from exact_roots import ExactRoots
from pmexp.packed_dropout import cpu, reference
from pmexp.systems.tempo.gelu import backward_by_torch, falling_bits
from pmexp.systems.tempo.gelu_derivative import ARGMIN, OTHER_ROOT
from pmexp.systems.tempo.gelu_vectors import Vectors
from triton_interpreter import Interpreter

FLOATS = [torch.float32, torch.bfloat16, torch.float16]
WHOLE = {2: torch.int16, 4: torch.int32}
each_dtype = pytest.mark.parametrize("dtype", FLOATS, ids=str)
each_form = pytest.mark.parametrize("form", ["erf", "tanh"])
needs_triton = pytest.mark.skipif(not importlib.util.find_spec("triton"), reason="Triton is not installed")


@pytest.fixture(scope="module", params=["triton", *cpu.available_backends()])
def kernels(request: pytest.FixtureRequest) -> Iterator[Interpreter | Vectors]:
    if request.param != "triton":
        yield Vectors(cpu.Core(request.param))
        return
    if importlib.util.find_spec("triton") is None:
        pytest.skip("Triton is not installed")
    interpreter = Interpreter("pmexp.systems.tempo.gelu_kernels")
    yield interpreter
    interpreter.close()


def outputs(x: Tensor, form: str) -> Tensor:
    return F.gelu(x, approximate="tanh" if form == "tanh" else "none")


def assert_same(kernels: Interpreter | Vectors, x: Tensor, grad: Tensor, form: str) -> None:
    """Compares bits of the inputs and gradients; what is NaN is NaN in both."""
    y, packed = outputs(x, form), reference.pack_bits(x < ARGMIN[form])
    assert torch.equal(kernels.falling_bits(x, form), packed)
    actual = kernels.gelu_backward(grad, y, packed, form)
    with ExactRoots():
        expected = backward_by_torch(grad, y, packed, form)
    assert (actual.dtype, actual.shape) == (grad.dtype, grad.shape)
    assert torch.equal(actual.isnan(), expected.isnan())
    whole = WHOLE[grad.element_size()]
    actual, expected = (t.contiguous().nan_to_num(7.0).view(whole) for t in (actual, expected))
    assert torch.equal(actual, expected)


@settings(max_examples=15, deadline=None)
@given(
    shape=st.one_of(
        st.sampled_from([0, 1, 7, 8, 9, 2047, 2048, 2049, 4095]).map(lambda n: (n,)),
        st.lists(st.integers(1, 40), min_size=2, max_size=3).map(tuple),
    ),
    dtype=st.sampled_from(FLOATS),
    form=st.sampled_from(["erf", "tanh"]),
    turned=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_any_size_and_layout(
    kernels: Interpreter | Vectors,
    shape: tuple[int, ...],
    dtype: torch.dtype,
    form: str,
    turned: bool,
    seed: int,
) -> None:
    generator = torch.Generator().manual_seed(seed)
    x, grad = (2 * torch.randn(shape, generator=generator) for _ in range(2))
    if turned:
        x = x.permute(*range(x.dim())[::-1])
        grad = grad.permute(*range(grad.dim())[::-1])
    assert_same(kernels, x.to(dtype), grad.to(dtype), form)


@each_form
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_every_16_bit_number(kernels: Interpreter | Vectors, dtype: torch.dtype, form: str) -> None:
    x = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(dtype)
    assert_same(kernels, x, torch.randn(x.shape, generator=torch.Generator().manual_seed(1)).to(dtype), form)


@each_form
def test_float32_at_the_minimum_in_the_tails_and_where_nothing_is_finite(
    kernels: Interpreter | Vectors, form: str
) -> None:
    special = torch.tensor([float("inf"), -float("inf"), float("nan"), -0.0, 0.0, 1e-45, -1e-45, 3e38, -3e38])
    x = torch.cat([torch.linspace(-14, 14, 40_001), torch.linspace(-0.7535, -0.7505, 40_001), special])
    grad = torch.randn(x.shape, generator=torch.Generator().manual_seed(2))
    grad[::7] *= 1e-42  # a subnormal gradient stays one
    assert_same(kernels, x, grad, form)


@each_form
def test_the_last_bit_of_a_root_is_worth_no_more_than_is_said(form: str) -> None:
    x = torch.cat([torch.linspace(-14, 14, 1 << 20), torch.linspace(-0.76, -0.74, 1 << 20)])
    y, packed, ones = outputs(x, form), falling_bits(x, form), torch.ones_like(x)
    with ExactRoots():
        exact = backward_by_torch(ones, y, packed, form)
    assert (backward_by_torch(ones, y, packed, form) - exact).abs().max() <= OTHER_ROOT


@needs_triton
@each_dtype
def test_what_the_compiler_makes_of_the_kernels(
    dtype: torch.dtype, tmp_path: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Elements move 16 bytes at a time, a cell of the table is one load, the roots are the correctly rounded ones,
    no product is fused with a sum and no subnormal lost."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource, compile

    from pmexp.systems.tempo import gelu_kernels as kernels

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    of = {torch.float32: "*fp32", torch.bfloat16: "*bf16", torch.float16: "*fp16"}[dtype]
    floats = dict.fromkeys(["minimum", "q0", "first", "cells_a_unit"], "fp32")
    tensors = {"grad": of, "y": of, "packed": "*u8", "lines": "*i64", "out": of}
    signatures = {
        kernels._backward_kernel: {**tensors, "numel": "i32", **floats},
        kernels._falling_kernel: {"x": of, "packed": "*u8", "numel": "i32", "argmin": "fp32"},
    }
    for kernel, signature in signatures.items():
        aligned = {
            (i,): [["tt.divisibility", 16]] for i, kind in enumerate(signature.values()) if kind != "fp32"
        }
        source = ASTSource(
            kernel, {**signature, "ROWS": "constexpr"}, {"ROWS": kernels._ROWS}, aligned
        )  # fmt: skip
        ptx = compile(source, target=GPUTarget("cuda", 90, 32), options=kernels._OPTIONS).asm["ptx"]
        assert "ld.global.v4.b32" in ptx
        assert "fma." not in ptx and "ftz" not in ptx and "approx" not in ptx
        if kernel is kernels._backward_kernel:
            assert ptx.count("sqrt.rn.f32") == 2 * 16 and ptx.count("ld.global.b64") == 16
            assert "st.global.v4.b32" in ptx
