"""Times steps of a large model as CUDA graphs, where the host has next to nothing to do: the device's cost.

What a graph needs for a step stays its own as long as it lives, so one contender's graph at a time lies
beside the baseline's.
"""

import statistics

from pmexp.bench.gpu.bench import Bench
from pmexp.bench.gpu.budget import Budget
from pmexp.bench.gpu.captured import captured
from pmexp.bench.gpu.device_time import FEWEST_FOR_AN_INTERVAL, Timed, ratio_cells, rounds, wall_seconds
from pmexp.bench.gpu.leftovers import free_memory
from pmexp.bench.gpu.same_losses import Step, replay_fault
from pmexp.bench.gpu.workload import BASELINE, Workload

_MOST_ROUNDS, _REPLAYS = 20, 2  # replays in a timing


def replayed_steps(bench: Bench, budget: Budget, workload: Workload) -> None:
    """Writes rows of the table "steps": each variant of a capturable workload, against the baseline."""
    if bench.device.type != "cuda":
        bench.left_out(f"{workload}, CUDA graphs: need CUDA")
        return
    contenders = [name for name in workload.variants if name != BASELINE]
    baseline = _checked(bench, workload, BASELINE)
    if baseline is None:
        return
    of_baseline: list[Timed] = []
    for place, name in enumerate(contenders):
        with bench.part(f"{workload}, CUDA graph of {name}"):
            of_baseline += _against(bench, budget.part(len(contenders) - place), workload, baseline, name)
        free_memory()
    if of_baseline:
        _row(bench, workload, BASELINE, of_baseline, of_baseline)


def _against(bench: Bench, budget: Budget, workload: Workload, baseline: Step, name: str) -> list[Timed]:
    """Adds the contender's row and returns the baseline's timings of the same rounds."""
    replay = _checked(bench, workload, name)
    if replay is None:
        return []
    steps = {BASELINE: baseline, name: replay}
    timed: dict[str, list[Timed]] = {taker: [] for taker in steps}
    for order in rounds(list(steps), 2 if bench.tiny else _MOST_ROUNDS, budget, FEWEST_FOR_AN_INTERVAL):
        for taker in order:
            steps[taker]()
            timed[taker].append(wall_seconds(steps[taker], _REPLAYS, bench.device))
    _row(bench, workload, name, timed[name], timed[BASELINE])
    return timed[BASELINE]


def _checked(bench: Bench, workload: Workload, name: str) -> Step | None:
    """Returns the captured step, None where its losses are wrong; the workspace of the steps before it is
    given back first."""
    free_memory()
    replay = captured(workload, name, workload.size.batch)
    fault = replay_fault(workload, name, workload.size.batch, replay)
    what = f"{workload}: replays of {name} are steps, with new masks each"
    bench.check(what, fault is None, fault or "")
    return replay if fault is None else None


def _row(bench: Bench, workload: Workload, name: str, timed: list[Timed], baseline: list[Timed]) -> None:
    wall, of_baseline = ([one.seconds for one in times] for times in (timed, baseline))
    bench.row(
        "steps",
        attention=workload.attention,
        variant=name,
        batch=workload.size.batch,
        graph=True,
        wall_ms=1e3 * statistics.median(wall),
        host_ms=1e3 * statistics.median(one.host_seconds for one in timed),
        **ratio_cells(of_baseline, wall, "times_as_fast"),
        rounds=len(wall),
    )
