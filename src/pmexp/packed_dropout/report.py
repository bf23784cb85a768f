"""Reports what replace_dropout did to a model and what it left, filled in as the model runs."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from pmexp.shown import any_layer, counted

Place = Literal["all", "attention", "hidden"]


MATH = "math kernel"  # torch's kernel of attention whose dropout is reached
KERNEL_UNSEEN = f"reached where torch takes its {MATH}, as on the CPU; no call that drops was seen yet"
UNREAD = "has no source to read"  # a reason that holds until the module has run
_INSIDE = "attention dropout is drawn inside the"
STAYS_TORCHS_OWN = "functional calls are nn.Dropout's own"  # the reason where a dropout has no method `drop`


def _by_layers(said: Iterable[tuple[str, str]]) -> list[str]:
    """Returns a line for each module and what is said of it: one where they differ in their layer alone."""
    groups: dict[tuple[str, str], list[str]] = {}
    for name, reason in said:
        groups.setdefault((any_layer(name), reason), []).append(name)
    return [
        f"  {f'{layers} x {len(names)}' if len(names) > 1 else names[0] or 'the model'}: {reason}"
        for (layers, reason), names in groups.items()
    ]


@dataclass
class ReplacementReport:
    """Says what `replace_dropout` did, by qualified module name.

    Modules are known at once. Functional dropout that no reading finds, and masks that a model draws by other
    means, are known when the model has run once in training: until then `settled` is False.
    """

    by: str
    where: str
    modules: list[str] = field(default_factory=list)  # names of the dropout modules that were exchanged
    # In the modules of these names functional dropout is routed.
    functions: list[str] = field(default_factory=list)
    # Modules whose call of scaled_dot_product_attention is routed, and the kernel that computed its last one.
    attention: dict[str, str] = field(default_factory=dict)
    left: dict[str, str] = field(default_factory=dict)  # the reason why a module was left alone, by its name
    # These were exchanged and not called, or routed and called no functional dropout, when the model ran.
    uncalled: list[str] = field(default_factory=list)
    # Dropped operands that a forward with `recompute` saved all the same: how many, by the reason.
    saved_whole: dict[str, int] = field(default_factory=dict)
    # Dropped operands that the first backward made again, bit for bit as they had been.
    rebuilt_equal: int = 0
    settled: bool = False  # whether a whole forward in training was seen

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        head = (
            f"{self.by} in place of {counted(len(self.modules), 'dropout module')} and of the functional "
            f"dropout of {counted(len(self.functions), 'module')} (where={self.where}); "
            f"{len(self.left)} left alone"
        )
        kernels = Counter(kernel for name, kernel in self.attention.items() if name not in self.left)
        lines = [
            f"  and of the attention of {counted(n, 'module')}: {kernel}" for kernel, n in kernels.items()
        ]
        lines += _by_layers([*self.left.items(), *((name, self._unseen(name)) for name in self.uncalled)])
        lines += [f"  {n} x a dropped operand saved as it is: {why}" for why, n in self.saved_whole.items()]
        if self.rebuilt_equal:
            lines.append(f"  {self.rebuilt_equal} x a dropped operand made again, bit for bit as it had been")
        if not self.settled:
            lines.append("  not settled: the first forward in training shows what reading the code cannot")
        return "\n".join([head, *lines])

    def _unseen(self, name: str) -> str:
        if name in self.modules:
            return "exchanged, but no draw of it was seen in the forward"
        return (
            "routed, but no call of functional dropout was seen in its forward: one in a thread stays torch's"
        )

    def leave(self, name: str, reason: str) -> None:
        """Notes why `name` was left alone; the first reason counts."""
        self.left.setdefault(name, reason)

    def forward_seen(self, name: str) -> None:
        """Notes that a forward of `name` in training was seen, which shows what reading could not."""
        if UNREAD in self.left.get(name, ""):
            del self.left[name]

    def attention_ran(self, name: str, kernel: str, keeps: str = "") -> None:
        """Notes which kernel computed the attention of the module `name`, and with it what was reached.

        keeps: words that say what a kernel out of reach keeps for backward.
        """
        self.attention[name] = kernel
        if not kernel.startswith(MATH):
            self.left[name] = f"{_INSIDE} {kernel}; it needs eager attention{keeps}"
        elif self.left.get(name, "").startswith(_INSIDE):
            del self.left[name]

    def nothing_found(self, model: str) -> str | None:
        """Returns what to say of a model of class `model` in which nothing was replaced, else None."""
        attention = self.attention.keys() - self.left.keys()
        if self.modules or self.functions or attention or STAYS_TORCHS_OWN in self.left.values():
            return None
        reasons = "; ".join(f"{name or 'the model'}: {reason}" for name, reason in self.left.items())
        if not reasons:
            reasons = "no dropout is seen in it" if self.settled else "its code shows no dropout"
        return f"replace_dropout(where={self.where!r}) found nothing to replace in {model}: {reasons}"
