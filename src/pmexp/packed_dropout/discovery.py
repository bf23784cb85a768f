"""Finds, by running a model, the dropout that reading its code does not show.

A watched module routes F.dropout from its first call on, as add_route does, to a dropout that is made when it
is needed. Meanwhile a TorchDispatchMode sees every operator that draws random numbers and says which module
and line is behind it. After a forward in training the modules that ran are watched no longer: those that
called functional dropout keep their route, what cannot be routed is named in the report.
"""

import threading
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import unset_fake_temporarily
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from pmexp.packed_dropout.attention import AttentionDropout
from pmexp.packed_dropout.draws import Draw, drawn_elements, is_for_each_sample, origin_of_draw
from pmexp.packed_dropout.rebuild import watching
from pmexp.packed_dropout.report import KERNEL_UNSEEN, STAYS_TORCHS_OWN, ReplacementReport
from pmexp.packed_dropout.routed_modules import (
    ATTENTION,
    DROPOUT,
    WATCH,
    add_route,
    class_may_go,
    is_routed,
    leave_routed_class,
    needs_routed_class,
    put_routed_attention,
    put_routed_dropout,
    route_by_mode,
    routed_attention,
    routed_dropout,
    run_routed,
    take_routed_class,
)
from pmexp.packed_dropout.routes import ROUTED_CALLS, RecomputingRoute, run_under


@dataclass
class WatchedForward:
    """Holds what one forward in training showed."""

    names: dict[int, str]  # names of the modules, by identity
    replaced: set[str] = field(default_factory=set)  # dropouts exchanged
    ran: dict[str, nn.Module] = field(default_factory=dict)  # watched modules whose forward ran
    # Says where the functional dropout of a module, by name, is sent.
    sent_to: dict[str, nn.Module | None] = field(default_factory=dict)
    # Says the same of the dropout inside their attention.
    attention: dict[str, nn.Module | None] = field(default_factory=dict)
    called: set[str] = field(default_factory=set)  # dropouts exchanged that drew a mask
    # In these modules functional dropout was routed, and drew a mask.
    dropped: set[str] = field(default_factory=set)
    # The forward of these modules called functional dropout, at any rate.
    asked: set[str] = field(default_factory=set)
    draws: list[Draw] = field(default_factory=list)  # draws of code that has no dropout of ours
    saved_whole: Counter[str] = field(default_factory=Counter)  # dropped operands, by why they are saved
    function: str | None = None  # the outermost function of torch that runs
    dry: bool = False  # whether it ran on fake tensors


class _Now(threading.local):
    """Holds the watched forward that runs in this thread, and the discovery that watches it."""

    run: WatchedForward | None = None
    discovery: "Discovery | None" = None


_now = _Now()


@dataclass
class Discovery:
    """Holds what is left to find out about a model after replace_dropout.

    It holds no module of the model, since a copy of one watched module would then copy the whole model.
    """

    report: ReplacementReport
    dropout: type[nn.Dropout]
    options: dict[str, Any]
    model: str  # the name of its class
    watched: set[str] = field(default_factory=set)  # names of modules
    asked: set[str] = field(default_factory=set)  # names of those that called functional dropout so far

    def watch(self, module: nn.Module, name: str) -> None:
        """Watches the next forward of `module` in training, unless its class takes no subclass."""
        try:
            take_routed_class(module)
        except TypeError:
            return
        vars(module)[WATCH] = DropoutWatch(self, name)
        self.watched.add(name)

    def settle(self, run: WatchedForward, modules: dict[str, nn.Module], whole: bool) -> None:
        """Ends the watch of the modules that ran, by what the run showed; whole: the model's forward ran."""
        self.asked |= run.asked
        for name in run.ran:
            self.watched.discard(name)
            self.report.forward_seen(name)
            _end_watch(modules[name], run, name)
        for name, child in run.sent_to.items():
            if child is None:
                self.report.leave(name, self._why_not_routed())
            elif name not in self.report.functions:
                self.report.functions.append(name)
        for name, child in run.attention.items():
            if child is None:
                self.report.leave(name, self._why_not_routed())
            else:
                put_routed_attention(modules[name], AttentionDropout(child, self.report, name))
        for name in run.dropped & self.report.attention.keys():
            if self.report.attention[name] == KERNEL_UNSEEN:  # torch's attention that returns its weights
                self.report.attention[name] = "by F.dropout"
        for name, lines in _by_place(run.draws).items():
            self.report.leave(name, "; ".join(lines))
            for around in _names_around(name) & run.ran.keys():
                route_by_mode(modules[around])  # which takes no call that the report says is left
        if whole and not self.report.settled:
            self.report.settled = True
            rates = {name: getattr(modules.get(name), "p", 0.0) for name in self.report.modules}
            # One may have several names.
            called, asked = ({id(modules.get(name)) for name in names} for names in (run.called, self.asked))
            self.report.uncalled += [
                name for name, p in rates.items() if 0.0 < p < 1.0 and id(modules[name]) not in called
            ]
            self.report.uncalled += [
                name for name in self.report.functions if id(modules.get(name)) not in asked
            ]
            self._look_for_attention(run, modules)
            self.report.saved_whole = dict(run.saved_whole)

    def child(self, module: nn.Module, place: str) -> nn.Module | None:
        """Returns what dropout of `place` in the forward of `module` is sent to; None for torch's own."""
        if self.report.where not in ("all", place) or not hasattr(self.dropout, "drop"):
            return None
        return self.dropout(**self.options).train(module.training)

    def _why_not_routed(self) -> str:
        return f"where={self.report.where}" if hasattr(self.dropout, "drop") else STAYS_TORCHS_OWN

    def _look_for_attention(self, run: WatchedForward, modules: dict[str, nn.Module]) -> None:
        """Reports each configured rate of attention dropout where no dropout was called in attention."""
        dropped = [name for name in run.called if drops_probabilities(*_parent_and_name(modules, name))]
        places = [*run.dropped, *(draw.place for draw in run.draws)]
        dropped += [name for name in places if "Att" in type(modules.get(name)).__name__]
        dropped += [draw.place for draw in run.draws if "attention" in draw.by]
        dropped += [name for name, kernel in self.report.attention.items() if kernel != KERNEL_UNSEEN]
        if dropped:
            return
        configs = {id(c): c for m in modules.values() if hasattr(c := getattr(m, "config", None), "__dict__")}
        for config in configs.values():
            for key, rate in vars(config).items():
                if "att" in key and "drop" in key and isinstance(rate, float) and rate > 0.0:
                    self.report.leave(
                        f"config.{key}", f"{rate:g} is configured, and no dropout was called in attention"
                    )


@dataclass
class DropoutWatch:
    """Says which discovery a watched module belongs to, and its name there."""

    discovery: Discovery
    name: str

    @property
    def may_route(self) -> bool:
        """Whether the forward may show functional dropout that is to be replaced."""
        return hasattr(self.discovery.dropout, "drop")

    def run(self, module: nn.Module, function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Runs a forward of `module` and observes it; the outermost one settles what ran in it."""
        if _now.discovery is self.discovery:
            return self._run(module, function, args, kwargs)
        if _is_compiled(module):
            return run_routed(module, function, args, kwargs)
        prefix = self.name
        with observed(self.discovery, module, prefix) as run:
            result = self._run(module, function, args, kwargs)
        # Names may have changed since the forward began.
        modules = dict(_named_modules(module, prefix)) | run.ran
        self.discovery.settle(run, modules, whole=prefix == "")
        if prefix == "" and (warning := self.discovery.report.nothing_found(self.discovery.model)):
            warnings.warn(warning, stacklevel=3)
        return result

    def _run(self, module: nn.Module, function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        run = _now.run
        assert run
        run.ran[self.name] = module
        named = partial(_with_names, _Names(run, self.name), function)
        if is_routed(module):
            return run_routed(module, named, args, kwargs)
        return run_under(_MadeWhenNeeded(self, module, run), named, args, kwargs)


@contextmanager
def observed(
    discovery: Discovery, module: nn.Module, prefix: str = "", dry: bool = False
) -> Iterator[WatchedForward]:
    """Opens a context in which every draw of `module`, which is called `prefix` in its model, is noted."""
    run = WatchedForward(_names_of(module, prefix), set(discovery.report.modules), dry=dry)
    before = _now.run, _now.discovery
    _now.run, _now.discovery = run, discovery
    try:
        with _Draws(run), watching(lambda _: None, lambda why: run.saved_whole.update([why])):
            yield run
    finally:
        _now.run, _now.discovery = before


@contextmanager
def other_draws(model: nn.Module, report: ReplacementReport) -> Iterator[list[Draw]]:
    """Opens a context whose list takes what `model` draws by other means than the dropout put into it."""
    run = WatchedForward(_names_of(model, ""), set(report.modules))
    with _Draws(run):
        yield run.draws


def unnamed_draws(draws: list[Draw], report: ReplacementReport) -> list[str]:
    """A line for each of `draws` whose module `report` does not name."""
    lines = {f"{draw.place or 'the model'}: {draw}": None for draw in draws if draw.place not in report.left}
    return list(lines)


def place_of_functions(module: nn.Module) -> str:
    """Whether the functional dropout of `module` counts as one of "attention" or "hidden"."""
    return "attention" if "Attention" in type(module).__name__ else "hidden"


def drops_probabilities(parent: nn.Module, name: str) -> bool:
    """Whether the dropout `name` of `parent` drops attention probabilities.

    It does in an attention class with no other attention class inside (T5's layers have one inside), under a
    name that does not say otherwise.
    """
    if any("Attention" in type(module).__name__ for module in parent.children()):
        return False
    of_something_else = name.startswith(("resid", "out", "hidden", "proj", "pos"))
    return "Attention" in type(parent).__name__ and not of_something_else


class _MadeWhenNeeded(RecomputingRoute):
    """Routes a module whose functional dropout is not known yet."""

    def __init__(self, watch: DropoutWatch, module: nn.Module, run: WatchedForward) -> None:
        super().__init__(None, module)
        self.watch, self.run = watch, run

    def choose(self) -> None:
        name = self.watch.name
        if name not in self.run.sent_to:
            place = place_of_functions(self.module)
            child = self.run.sent_to[name] = self.watch.discovery.child(self.module, place)
            self.run.names[id(child)] = f"{name}.{DROPOUT}"
        self.dropout = self.run.sent_to[name]

    def choose_attention(self) -> None:
        name, discovery = self.watch.name, self.watch.discovery
        if name not in self.run.attention:
            child = self.run.attention[name] = discovery.child(self.module, "attention")
            self.run.names[id(child)] = f"{name}.{ATTENTION}"
        child = self.run.attention[name]
        self.attention = AttentionDropout(child, discovery.report, name) if child else None


class _Draws(TorchDispatchMode):
    """Notes every operator that draws random numbers, and changes none."""

    only_looks = True  # see cuda_rng.py

    def __init__(self, run: WatchedForward) -> None:
        super().__init__()
        self.run = run

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if torch.Tag.nondeterministic_seeded not in func.tags:
            return result
        if elements := drawn_elements(func, args, kwargs or {}, result):
            by = self.run.function or str(func)
            self._note(origin_of_draw(self.run.names, by, elements, is_for_each_sample(result)))
        if (
            self.run.dry and isinstance(result, Tensor) and result.dim() == 0
        ):  # code reads the value of such a result
            with unset_fake_temporarily():
                one = torch.ones((), dtype=result.dtype)
            return torch.ops.aten.lift_fresh(one)  # torch.tensor has no value here in torch 2.10
        return result

    def _note(self, draw: Draw) -> None:
        if draw.place in self.run.replaced:
            self.run.called.add(draw.place)
        elif draw.ours or draw.place.endswith((DROPOUT, ATTENTION)):
            place = draw.place.removesuffix(DROPOUT).removesuffix(ATTENTION)
            self.run.dropped.add(place.removesuffix("."))
        elif draw.elements > 1 or draw.each_sample:  # any other single number is no mask
            self.run.draws.append(draw)

    @classmethod
    def ignore_compile_internals(cls) -> bool:
        return True


class _Names(TorchFunctionMode):
    """Knows which function of torch runs: one that is made of several operators says more than they do.

    It notes as well that a forward calls functional dropout, at any rate; a thread of its own has no modes.
    """

    def __init__(self, run: WatchedForward, name: str) -> None:
        super().__init__()
        self.run, self.name = run, name

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in ROUTED_CALLS:
            self.run.asked.add(self.name)
        if self.run.function is not None:
            return func(*args, **(kwargs or {}))
        self.run.function = getattr(func, "__name__", str(func))
        try:
            return func(*args, **(kwargs or {}))
        finally:
            self.run.function = None


def _with_names(names: _Names, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    with names:
        return function(*args, **kwargs)


def _end_watch(module: nn.Module, run: WatchedForward, name: str) -> None:
    vars(module).pop(WATCH, None)
    if (child := run.sent_to.get(name)) is not None:
        put_routed_dropout(module, child)
    if name in run.sent_to or name in run.attention:
        add_route(module)
    elif not needs_routed_class(module) and (run.dry or class_may_go(module)):
        leave_routed_class(module)


def _by_place(draws: list[Draw]) -> dict[str, list[str]]:
    """A line for each line of code that drew, by its module."""
    lines_of: dict[str, dict[tuple[str, str], str]] = {}
    for draw in draws:
        lines_of.setdefault(draw.place, {})[draw.by, draw.line] = str(draw)
    return {place: list(lines.values()) for place, lines in lines_of.items()}


def _names_of(module: nn.Module, prefix: str) -> dict[int, str]:
    """Returns the name of each module in it by identity: of several the first, by which a report calls it."""
    names: dict[int, str] = {}
    for name, part in _named_modules(module, prefix):
        names.setdefault(id(part), name)
    return names


def _named_modules(module: nn.Module, prefix: str) -> Iterator[tuple[str, nn.Module]]:
    """Yields the modules in it, and what their functional dropout is sent to."""
    for name, part in module.named_modules(prefix=prefix, remove_duplicate=False):
        yield name, part
        if (dropout := routed_dropout(part)) is not None:
            yield f"{name}.{DROPOUT}".lstrip("."), dropout
        if (attention := routed_attention(part)) is not None:
            yield f"{name}.{ATTENTION}".lstrip("."), attention.dropout


def _names_around(path: str) -> set[str]:
    """The names of the module of that name and of all that it is in."""
    parts = path.split(".")
    return {".".join(parts[:n]) for n in range(len(parts) + 1)}


def _parent_and_name(modules: dict[str, nn.Module], path: str) -> tuple[nn.Module, str]:
    parent, _, name = path.rpartition(".")
    return modules[parent], name


def _is_compiled(module: nn.Module) -> bool:
    """Whether torch.compile has a part of it: its graphs depend on the modes around them."""
    parts = list(module.modules())
    return any(part._compiled_call_impl is not None or hasattr(part, "_orig_mod") for part in parts)
