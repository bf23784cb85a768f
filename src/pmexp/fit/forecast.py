"""Holds what `predict` says of a step, and writes it as text."""

from dataclasses import dataclass, field
from typing import Any

from pmexp.fit.budget import DEVICES, budget_bytes, in_unit
from pmexp.shown import aligned
from pmexp.simulation.live_bytes import CATEGORIES, FROZEN

# The peaks of eight measured steps were above the simulated ones by at most so much (docs/results/gpu.md:
# BERT-Large on an H200, all but a constant amount, which torch's allocator gives to cuBLAS).
BEYOND_SHARE, BEYOND_BYTES = 0.0088, 68 * 2**20
MEASURED = (
    "eight measured steps of BERT-Large on an H200 took 0.25 to 0.88 % more than simulated, 67 to 68 MiB"
)


@dataclass(frozen=True)
class StepPeak:
    """One simulated step: its peak, and what its operators do."""

    by_category: dict[str, int]  # bytes at the peak, by CATEGORIES
    phase: str  # forward, backward or update: where the peak is
    products: int  # floating-point operations of matrix products, convolutions and attention
    traffic_bytes: int  # that operators read and write
    note: str = ""  # what a method did

    @property
    def peak_bytes(self) -> int:
        return sum(self.by_category.values())

    @property
    def highest_bytes(self) -> int:
        """The end of the error bar, which begins at peak_bytes: what the measured cases took beyond it."""
        return self.peak_bytes + max(BEYOND_BYTES, round(BEYOND_SHARE * self.peak_bytes))

    def fits(self, card: str) -> bool | None:
        """Returns whether the step fits a card of budget.py, or a budget in bytes or GiB.

        None: the budget lies within the error bar. Raises UserError for an unknown card.
        """
        budget = budget_bytes(card)
        return True if self.highest_bytes <= budget else None if self.peak_bytes <= budget else False


@dataclass(frozen=True)
class Forecast:
    """What `predict` says: the step that was asked for, and the same step with one method more each."""

    model: str
    parts: tuple[str, ...]
    asked: StepPeak
    methods: dict[str, StepPeak] = field(default_factory=dict)
    without_effect: dict[str, str] = field(default_factory=dict)  # the reason, by method
    not_modelled: tuple[str, ...] = ()
    is_in_eval: bool = False  # the model was, and what is said is of its step in training mode

    @property
    def cards(self) -> dict[str, bool | None]:
        """Whether the asked step fits each known card; None: within the error bar."""
        return {card: self.asked.fits(card) for card in DEVICES}

    def __str__(self) -> str:
        asked, largest = self.asked, self.asked.peak_bytes
        stack = f" with {', '.join(self.parts)}" * bool(self.parts)
        lines = [
            f"A step of {self.model}{stack} peaks at {in_unit(asked.peak_bytes, largest)} (up to "
            f"{in_unit(asked.highest_bytes, asked.highest_bytes)}), in {asked.phase}"
        ]
        lines += ["The model is in eval mode: simulated is its step in training mode, all modules of it."] * (
            self.is_in_eval
        )
        lines += [f"  {name:<12}{in_unit(asked.by_category[name], largest):>13}" for name in CATEGORIES]
        said = {True: "fits", None: "may fit", False: "does not fit"}
        for fits, words in said.items():
            if cards := [card for card, fit in self.cards.items() if fit is fits]:
                lines.append(f"{words}: {', '.join(cards)}")
        if self.methods:
            rows = [_HEAD, *(self._row(name) for name in self.methods)]
            right = [False, *[True] * (len(_HEAD) - 2), False]
            lines += ["", *(line.rstrip() for line in aligned(rows, right))]
        lines += [f"{name}: {reason}" for name, reason in self.without_effect.items()]
        lines += [
            "",
            f"Error bar: {MEASURED}.",
            "Not modelled:",
            *(f"  {what}" for what in self.not_modelled),
        ]
        return "\n".join(lines)

    def _row(self, name: str) -> list[str]:
        asked, step = self.asked, self.methods[name]
        return [
            name,
            in_unit(step.peak_bytes, asked.peak_bytes),
            f"{1 - step.peak_bytes / asked.peak_bytes:.1%}",
            change(step.products, asked.products),
            change(step.traffic_bytes, asked.traffic_bytes),
            step.note,
        ]


_HEAD = ["with", "peak", "saves", "products", "traffic", ""]


def change(new: int, old: int) -> str:
    """Returns by how much `new` is more than `old`, in percent."""
    return f"{new / old - 1:+.1%}" if old else "-"


def categories(counted: dict[str, Any]) -> dict[str, int]:
    """Returns the bytes of a simulated peak by CATEGORIES; frozen parameters are among the parameters."""
    held = dict.fromkeys(CATEGORIES, 0)
    for name, size in counted.items():
        held["parameters" if name == FROZEN else name] += size
    return held
