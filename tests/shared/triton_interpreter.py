"""A process in which Triton interprets its kernels on CPU tensors.

Triton settles when it is first imported whether it compiles or interprets (TRITON_INTERPRET=1), its own
library functions included, and torch.compile imports it too. So the interpreter gets a process to itself:
nothing of it reaches other tests.
"""

import dataclasses
import importlib
import io
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

_GUARD = 2**15  # bytes before and behind each tensor that a kernel gets; more than a program writes


class Interpreter:
    """Has for attributes the launchers in `modules`, by default the method's and those of interpreted_kernels.py,
    and that of torchs_account.py, which is imported when it is asked for: older torches have no such account."""

    name = "triton interpreter"

    def __init__(self, *modules: str) -> None:
        self._modules = modules or ("pmexp.packed_dropout.triton_kernels", "interpreted_kernels")
        self._pool = ProcessPoolExecutor(1, get_context("spawn"), _start, self._modules)

    def __getattr__(self, launcher: str) -> Any:
        if launcher.startswith("_"):
            raise AttributeError(launcher)

        def call(*arguments: Any) -> Any:
            answer = self._pool.submit(_call, self._modules, launcher, _pickled(arguments)).result()
            return torch.load(io.BytesIO(answer), weights_only=False)

        return call

    def close(self) -> None:
        self._pool.shutdown()


def _pickled(value: Any) -> bytes:
    file = io.BytesIO()
    torch.save(value, file)  # keeps strides
    return file.getvalue()


def _start(*modules: str) -> None:
    os.environ["TRITON_INTERPRET"] = "1"
    from triton.runtime import interpreter

    interpreter.InterpreterBuilder.cast_impl = _correct_cast(interpreter)
    interpreter.InterpreterBuilder.create_inline_asm = _wide_product(interpreter)
    # Without `debug` Triton computes whether integers overflow and throws it away: a quarter of a launch's time.
    builder = interpreter.interpreter_builder
    builder.options = dataclasses.replace(builder.options, sanitize_overflow=builder.options.debug)
    _keep_types(interpreter)
    loaded = [importlib.import_module(module) for module in modules]
    if kernels := sys.modules.get("pmexp.packed_dropout.triton_kernels"):
        kernels._philox = _reference_philox(interpreter)  # type: ignore[attr-defined]
    interpreter.InterpretedFunction.__call__ = _device_call(interpreter, [vars(module) for module in loaded])
    for module in loaded:
        for name in [name for name in vars(module) if name.startswith("_run")]:
            setattr(module, name, _guarded(getattr(module, name)))
    torch.set_grad_enabled(False)  # as where the operators are called
    # Fills torch.empty() with NaN and 255: what a kernel leaves out shows.
    torch.use_deterministic_algorithms(True)


def _call(modules: tuple[str, ...], launcher: str, arguments: bytes) -> bytes:
    places = (importlib.import_module(name) for name in (*modules, "torchs_account"))
    try:
        place = next(module for module in places if hasattr(module, launcher))
        result = getattr(place, launcher)(*torch.load(io.BytesIO(arguments), weights_only=False))
    except Exception as error:
        if type(error).__module__.startswith("triton"):
            raise RuntimeError(repr(error)) from None  # the caller has no Triton to unpickle its errors with
        raise
    return _pickled(result)


def _correct_cast(interpreter: Any) -> Any:
    """Casts as hardware does: the interpreter cuts float32 off to bfloat16 and loses bfloat16's subnormals."""
    original = interpreter.InterpreterBuilder.cast_impl
    language = interpreter.tl

    def cast(self: Any, source: Any, target: Any) -> Any:
        pair = (source.dtype.scalar, target.scalar)
        if pair == (language.float32, language.bfloat16):
            data = torch.from_numpy(source.data.copy()).to(torch.bfloat16).view(torch.uint16).numpy()
        elif pair == (language.bfloat16, language.float32):
            data = torch.from_numpy(source.data.copy()).view(torch.bfloat16).to(torch.float32).numpy()
        else:
            return original(self, source, target)
        return interpreter.TensorHandle(data, target.scalar)

    return cast


def _wide_product(interpreter: Any) -> Any:
    """Computes the one instruction that the kernels spell out, since the interpreter knows none."""

    def create_inline_asm(self: Any, code: str, constraints: str, operands: Any, *options: Any) -> Any:
        assert (code, constraints) == ("mul.wide.u32 $0, $1, $2;", "=l,r,r")
        one, other = (operand.data.astype("uint32").astype("uint64") for operand in operands)
        product = interpreter.TensorHandle(one * other, interpreter.tl.uint64)
        return SimpleNamespace(get_result=lambda place: product)

    return create_inline_asm


def _reference_philox(interpreter: Any) -> Any:
    """Draws the words of the kernels' _philox by the reference's: interpreted, its ten rounds were most of a launch.
    The kernels' own is kept by interpreted_kernels.py, for the test of it."""
    from pmexp.packed_dropout import reference

    word_type = interpreter.tl.uint32

    def philox(seed: Any, *counter: Any) -> tuple[Any, ...]:
        assert all(word.type.scalar == word_type for word in counter)
        key = int(seed.handle.data.item())
        halves = (torch.tensor(key & 0xFFFFFFFF), torch.tensor(key >> 32 & 0xFFFFFFFF))
        c0, c1, c2 = (torch.from_numpy(word.handle.data.astype(np.int64)) for word in counter)
        words = torch.broadcast_tensors(*reference.philox((c0, c1, c2, torch.zeros_like(c0)), halves))
        kind = next((word.type for word in counter if word.type.is_block()), word_type)
        handles = (interpreter.TensorHandle(word.numpy().astype(np.uint32), word_type) for word in words)
        return tuple(interpreter.tl.core.tensor(handle, kind) for handle in handles)

    return philox


def _keep_types(interpreter: Any) -> None:
    """Makes each type of a block once, and finds its NumPy dtype once: there are few, and every operation asks for
    some."""
    block_type, numpy_dtype = interpreter.tl.block_type, interpreter._get_np_dtype
    blocks: dict[tuple[Any, ...], Any] = {}
    dtypes: dict[str, Any] = {}

    def block_of(element: Any, shape: Any) -> Any:
        key = element.name, *shape
        if key not in blocks:
            blocks[key] = block_type(element, shape)
        return blocks[key]

    def dtype_of(kind: Any) -> Any:
        if kind.name not in dtypes:
            dtypes[kind.name] = numpy_dtype(kind)
        return dtypes[kind.name]

    block_type.with_element_ty = lambda block, element: block_of(element, block.shape)
    interpreter.InterpreterBuilder.get_block_ty = lambda builder, element, shape: block_of(element, shape)
    interpreter._get_np_dtype = dtype_of


def _device_call(interpreter: Any, kernels: list[dict[str, Any]]) -> Any:
    """Calls a function of a kernel as the interpreter does, which replaces triton.language by its own once more
    each time. The launch of the kernel beside it has done so: to do it again took a third of the time."""
    original = interpreter.InterpretedFunction.__call__

    def call(function: Any, *arguments: Any, **named: Any) -> Any:
        if any(function.fn.__globals__ is module for module in kernels):
            return function.rewrite()(*arguments, **named)
        return original(function, *arguments, **named)

    return call


def _guarded(run: Any) -> Any:
    """Does `run` on copies of its tensors between guard bytes, which it must leave alone."""

    def guarded(kernel: Any, *arguments: Any) -> None:
        fences: list[tuple[Tensor, Tensor, Tensor]] = []

        def fenced(value: Any) -> Any:
            if not isinstance(value, Tensor):
                return value
            size = value.numel() * value.element_size()
            whole = torch.full((size + 2 * _GUARD,), 0xAA, dtype=torch.uint8)
            inner = whole[_GUARD : _GUARD + size].view(value.dtype).view(value.shape)
            inner.copy_(value)
            fences.append((value, inner, whole))
            return inner

        run(kernel, *map(fenced, arguments))
        for value, inner, whole in fences:
            value.copy_(inner)
            assert (whole[:_GUARD] == 0xAA).all() and (whole[-_GUARD:] == 0xAA).all(), "written outside"

    return guarded
