"""BERT-Large at 512 tokens under bf16 autocast: peak memory as simulated and as it is, and time of a step."""

from collections.abc import Sequence

from pmexp.bench.gpu.bench import Bench
from pmexp.bench.gpu.budget import Budget
from pmexp.bench.gpu.checks import check_losses
from pmexp.bench.gpu.simulated import PHASES, Measured, Simulated, measured_step, simulated_step
from pmexp.bench.gpu.steps import StepRow, free_memory, measure_steps
from pmexp.bench.gpu.workload import (
    BASELINE,
    CHECKPOINTED_PACKED,
    CHECKPOINTING,
    VARIANTS,
    Workload,
    bert_large,
)

_PRECISION = "bf16"
_SIMULATED = {  # attention: configuration: variant
    "eager": {
        "stock": BASELINE,
        "packed": "pm-drop",
        "recompute": "pm-drop-recompute",
        "seed-only": "seed-only",
        CHECKPOINTING: CHECKPOINTING,
        CHECKPOINTED_PACKED: CHECKPOINTED_PACKED,
    },
    "sdpa": {"sdpa": BASELINE, "sdpa, packed": "pm-drop"},
}
_LARGEST_ERROR = 5.0  # percent of the measured peak
_ROUNDS, _FEW_ROUNDS = 30, 2
_MIB = 2**20


def measure(bench: Bench) -> None:
    size = bert_large(bench.tiny)
    bench.note(
        f"{size.name}, batch {size.batch}, {size.length} tokens, {_PRECISION} autocast, AdamW, clipping"
    )
    for attention, configurations in _SIMULATED.items():
        with bench.part(f"losses under {attention} attention"):
            bench.check(check_losses(size, attention, _PRECISION, bench.device), True)
        free_memory()
        with bench.part(f"simulated peaks under {attention} attention"):
            _compare(bench, attention, configurations)
        free_memory()
    attentions = list(_SIMULATED)
    for place, attention in enumerate(attentions):
        with bench.part(f"steps under {attention} attention"):
            _steps(bench, attention, bench.budget.part(len(attentions) - place))
        free_memory()


def _compare(bench: Bench, attention: str, configurations: dict[str, str]) -> None:
    """Simulates and runs a step of each configuration."""
    size = bert_large(bench.tiny)
    variants = list(configurations.values())
    workload = Workload(size, attention, _PRECISION, bench.device, variants)
    for name, variant in configurations.items():
        with bench.part(f"simulated peak, {name}"):
            for _ in range(2):  # loads kernels and makes AdamW's state
                workload.step(variant, size.batch)
            measured = measured_step(workload, variant)
            simulated = simulated_step(size, attention, _PRECISION, variant, bench.device.type)
            error = 100 * (simulated.peak_bytes / measured.peak_bytes - 1)
            _write(bench, name, measured, simulated, error)
            if bench.device.type == "cuda":  # elsewhere the peak is of the whole process
                what = f"simulated peak within {_LARGEST_ERROR:g} % of the measured one: {name}"
                bench.check(what, abs(error) <= _LARGEST_ERROR, f"{error:+.2f} %")
        free_memory()


def _write(bench: Bench, name: str, measured: Measured, simulated: Simulated, error: float) -> None:
    bench.row(
        "simulated",
        configuration=name,
        measured_MiB=_mib(measured.peak_bytes),
        simulated_MiB=_mib(simulated.peak_bytes),
        error_percent=round(error, 2),
        requested_MiB=_mib(measured.requested_bytes),
        reserved_MiB=_mib(measured.reserved_bytes),
        **{f"simulated_{kind}_MiB": _mib(held) for kind, held in simulated.by_category.items()},
    )
    for phase in PHASES:
        bench.row(
            "peak_of_each_phase",
            configuration=name,
            phase=phase,
            measured_MiB=_mib(measured.phases[phase]),
            simulated_MiB=_mib(simulated.phases[phase]),
            difference_MiB=_mib(simulated.phases[phase] - measured.phases[phase]),
        )


def _steps(bench: Bench, attention: str, budget: Budget) -> None:
    inside = attention != "eager"  # the kernel then drops, and there is nothing to recompute
    variants = [name for name in VARIANTS if not (inside and name == "pm-drop-recompute")]
    workload = Workload(bert_large(bench.tiny), attention, _PRECISION, bench.device, variants)
    rows, notes = measure_steps(workload, _FEW_ROUNDS if bench.tiny else _ROUNDS, budget)
    for note in notes:
        bench.note(note)
    for row in rows:
        bench.row("steps", **_cells(row, rows))


def _cells(row: StepRow, rows: Sequence[StepRow]) -> dict[str, str | int | float | None]:
    baseline = next(other for other in rows if other.variant == BASELINE)
    return {
        "attention": row.attention,
        "variant": row.variant,
        "batch": row.batch,
        "step_ms": row.ms,
        "times_as_fast": row.ratio,
        "from": row.low,
        "to": row.high,
        "rounds": len(row.seconds),
        "peak_MiB": _mib(row.peak_bytes),
        "saved_percent": round(100 * (1 - row.peak_bytes / baseline.peak_bytes), 2),
        "saved_for_backward_MiB": _mib(row.saved_bytes),
        "mask_bytes_an_element": row.mask_bytes / row.mask_elements if row.mask_elements else None,
    }


def _mib(count: int | None) -> float | None:
    return None if count is None else round(count / _MIB, 1)
