"""Measures a step of BERT-Large at 512 tokens under bf16 autocast: time, and peak memory beside the
simulated."""

from collections.abc import Callable, Sequence
from functools import partial

from pmexp.bench.gpu.bench import Bench, Cell
from pmexp.bench.gpu.budget import Budget
from pmexp.bench.gpu.checks import check_losses
from pmexp.bench.gpu.device_time import ratio_cells
from pmexp.bench.gpu.leftovers import Leftovers, check_starts, free_memory
from pmexp.bench.gpu.replayed_steps import replayed_steps
from pmexp.bench.gpu.simulated import AT_REST, PHASES, Measured, Simulated, measured_step, simulated_step
from pmexp.bench.gpu.steps import StepRow, measure_steps
from pmexp.bench.gpu.workload import (
    BASELINE,
    CHECKPOINTED_PACKED,
    CHECKPOINTING,
    NO_DROPOUT,
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
_Piece = Callable[[Bench, Budget], None]


def measure(bench: Bench) -> None:
    size = bert_large(bench.tiny)
    bench.note(
        f"{size.name}, batch {size.batch}, {size.length} tokens, {_PRECISION} autocast, AdamW, clipping; "
        "host ms is the part of wall ms until the host was done; a CUDA graph leaves the host "
        "next to nothing to do, so its step is the device's own cost"
    )
    pieces: tuple[tuple[str, _Piece, int], ...] = (  # with shares of the time
        ("losses under eager attention", partial(_losses, attention="eager"), 4),
        ("steps under eager attention", partial(_steps, attention="eager"), 22),
        ("steps under eager attention as CUDA graphs", _replays, 34),
        ("simulated peaks under eager attention", partial(_compare, attention="eager"), 24),
        ("losses under sdpa attention", partial(_losses, attention="sdpa"), 4),
        ("simulated peaks under sdpa attention", partial(_compare, attention="sdpa"), 8),
        ("steps under sdpa attention", partial(_steps, attention="sdpa"), 14),
    )
    leftovers = Leftovers(bench)
    named = {}
    for place, (name, piece, share) in enumerate(pieces):
        left = sum(later for *_, later in pieces[place:])
        named[name] = partial(_piece, leftovers=leftovers, name=name, piece=piece, share=share / left)
    bench.in_order(named)


def _piece(bench: Bench, leftovers: Leftovers, name: str, piece: _Piece, share: float) -> None:
    leftovers.check(name)
    piece(bench, Budget(share * bench.budget.left))


def _losses(bench: Bench, budget: Budget, attention: str) -> None:
    bench.check(check_losses(bert_large(bench.tiny), attention, _PRECISION, bench.device), True)


def _compare(bench: Bench, budget: Budget, attention: str) -> None:
    """Simulates and runs a step of each configuration."""
    size, configurations = bert_large(bench.tiny), _SIMULATED[attention]
    starts: dict[str, int] = {}
    variants = list(configurations.values())
    workload = Workload(size, attention, _PRECISION, bench.device, variants)
    for name, variant in configurations.items():
        with bench.part(f"simulated peak, {name}"):
            for _ in range(2):  # loads kernels and makes AdamW's state
                workload.step(variant, size.batch)
            measured = measured_step(workload, variant)
            starts[name] = measured.phases[AT_REST]
            simulated = simulated_step(size, attention, _PRECISION, variant, bench.device.type)
            error = 100 * (simulated.peak_bytes / measured.peak_bytes - 1)
            _write(bench, name, measured, simulated, error)
            if bench.device.type == "cuda":  # elsewhere the peak is of the whole process
                what = f"simulated peak within {_LARGEST_ERROR:g} % of the measured one: {name}"
                bench.check(what, abs(error) <= _LARGEST_ERROR, f"{error:+.2f} %")
        free_memory()
    check_starts(bench, starts)


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


def _steps(bench: Bench, budget: Budget, attention: str) -> None:
    inside = attention != "eager"  # the kernel then drops, and there is nothing to recompute
    variants = [name for name in VARIANTS if not (inside and name == "pm-drop-recompute")]
    workload = Workload(bert_large(bench.tiny), attention, _PRECISION, bench.device, variants)
    rows, notes = measure_steps(workload, _FEW_ROUNDS if bench.tiny else _ROUNDS, budget)
    for note in notes:
        bench.note(note)
    check_starts(bench, {row.variant: row.start_bytes for row in rows})
    for row in rows:
        bench.row("steps", attention=attention, **_cells(row, rows))


def _replays(bench: Bench, budget: Budget) -> None:
    variants = (BASELINE, "pm-drop", "pm-drop-recompute", NO_DROPOUT, "seed-only")
    size = bert_large(bench.tiny)
    workload = Workload(size, "eager", _PRECISION, bench.device, variants, capturable=True)
    replayed_steps(bench, budget, workload)


def _cells(row: StepRow, rows: Sequence[StepRow]) -> dict[str, Cell]:
    baseline = next(other for other in rows if other.variant == BASELINE)
    return {
        "variant": row.variant,
        "batch": row.batch,
        "graph": False,
        "wall_ms": row.ms,
        "host_ms": row.host_ms,
        **ratio_cells(baseline.seconds, row.seconds, "times_as_fast"),
        "rounds": len(row.seconds),
        "peak_MiB": _mib(row.peak_bytes),
        "above_start_MiB": _mib(row.peak_bytes - row.start_bytes) if row.start_bytes else None,
        "saved_percent": round(100 * (1 - row.peak_bytes / baseline.peak_bytes), 2),
        "saved_for_backward_MiB": _mib(row.saved_bytes),
        "mask_bytes_an_element": row.mask_bytes / row.mask_elements if row.mask_elements else None,
    }


def _mib(count: int | None) -> float | None:
    return None if count is None else round(count / _MIB, 1)
