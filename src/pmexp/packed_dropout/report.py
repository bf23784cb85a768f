"""Reports what replace_dropout did to a model and what it left, filled in as the model runs."""

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Place = Literal["all", "attention", "hidden"]


STAYS_TORCHS_OWN = "functional calls are nn.Dropout's own"  # the reason where a dropout has no method `drop`


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
    left: dict[str, str] = field(default_factory=dict)  # the reason why a module was left alone, by its name
    # These modules were exchanged, and not called when the model ran.
    uncalled: list[str] = field(default_factory=list)
    settled: bool = False  # whether a whole forward in training was seen

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        head = (
            f"{self.by} in place of {len(self.modules)} dropout modules and of the functional dropout "
            f"of {len(self.functions)} modules (where={self.where}); {len(self.left)} left alone"
        )
        lines = [f"  {name or 'the model'}: {reason}" for name, reason in self.left.items()]
        lines += [
            f"  {name}: exchanged, but not called in the forward that was seen" for name in self.uncalled
        ]
        if not self.settled:
            lines.append("  not settled: the first forward in training shows what reading the code cannot")
        return "\n".join([head, *lines])

    def leave(self, name: str, reason: str) -> None:
        """Notes why `name` was left alone; the first reason counts."""
        self.left.setdefault(name, reason)

    def nothing_found(self, model: str) -> str | None:
        """Returns what to say of a model of class `model` in which nothing was replaced, else None."""
        if self.modules or self.functions or STAYS_TORCHS_OWN in self.left.values():
            return None
        reasons = "; ".join(f"{name or 'the model'}: {reason}" for name, reason in self.left.items())
        if not reasons:
            reasons = "no dropout is seen in it" if self.settled else "its code shows no dropout"
        return f"replace_dropout(where={self.where!r}) found nothing to replace in {model}: {reasons}"
