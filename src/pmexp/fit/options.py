"""Reads and checks the keys of the command. Imports no torch: a wrong key is answered at once."""

from dataclasses import dataclass
from pathlib import Path

from pmexp.command.overrides import searching
from pmexp.command.schema import CONFIG_DIR, RUN_KEYS
from pmexp.command_line import Command, Given, Key, switch, whole
from pmexp.errors import UserError
from pmexp.fit.budget import DEVICES, budget_bytes

COMMAND = Command(
    "pmexp.fit",
    "does a training step fit into memory, and what is the largest that does?",
    (
        Key(
            "method",
            "simulate predicts the peak without GPU, data and checkpoint; measure takes real steps on the "
            "device, by system.processes",
            "simulate",
            ("simulate", "measure"),
        ),
        Key(
            "what",
            "what is searched: the largest batch that one process runs at once, or the longest text",
            "batch",
            ("batch", "length"),
        ),
        Key(
            "budget",
            "what a step may take: bytes (80e9), GiB (78.6GiB), or a device's memory less its CUDA context: "
            f"{', '.join(DEVICES)}",
            "A100-80GB",
        ),
        Key(
            "global_batch",
            "samples a step: only what divides it is tried, and gradients are accumulated; without it "
            "any batch is",
        ),
        Key("table", "a YAML file with tasks and arms: a table of them, by simulation"),
        CONFIG_DIR,
        Key(
            "out",
            "the file to write: .json, or .md of a table and of costs; without it method=measure writes for "
            "the report <runs_dir>/<name>/fit/<what>-<run id>.json",
        ),
        switch("cost", "GPU-hours of experiment=NAME by task, in the place of memory"),
        Key("budget_hours", "cost: GPU-hours that there are", "48"),
        Key("card", "cost: the GPU, by the name that CUDA gives it", "NVIDIA A100-SXM4-80GB"),
        Key("utilisation", "cost: share of the card's peak that a step is assumed to reach", "0.4"),
        Key(
            "products",
            "cost: precision of matrix products; run: that of system.parts and system.matmul",
            "run",
            ("run", "fp32", "tf32", "bf16", "fp16"),
        ),
        Key(
            "step_times",
            'cost: a JSON file {"<task>": <milliseconds a step>} of measured steps, tasks as in the table',
        ),
    ),
    others=RUN_KEYS,
)


@dataclass(frozen=True, kw_only=True)
class FitOptions:
    method: str
    what: str  # says what is searched: the largest batch or length that fits
    budget_bytes: int
    global_batch: int | None  # samples a step; micro-batches divide it
    table: Path | None
    out: Path | None
    cost: bool
    budget_hours: float
    card: str
    utilisation: float  # share of the card's peak
    products: str  # precision of matrix products; "run": that of the run's parts
    step_times: Path | None
    overrides: tuple[str, ...]  # change the run configuration


def fit_options(given: Given) -> FitOptions:
    """The options that were given. Raises UserError for a wrong value."""
    text = given["global_batch"]
    batch = whole("global_batch", text, what="number of samples") if text else None
    is_page = given.is_on("cost") or given["table"]
    options = FitOptions(
        method=given["method"],
        what=given["what"],
        budget_bytes=budget_bytes(given["budget"]),
        global_batch=batch,
        table=given.path("table"),
        out=given.new_file("out", ".md" if is_page else ".json"),
        cost=given.is_on("cost"),
        budget_hours=_up_to("budget_hours", given["budget_hours"], 1e9, "hours"),
        card=given["card"],
        utilisation=_up_to("utilisation", given["utilisation"], 1.0, "shares"),
        products=given["products"],
        step_times=given.path("step_times"),
        overrides=(*given.others, *searching(given.path("config_dir"))),
    )
    if options.global_batch and options.what == "length":
        raise UserError(f"global_batch={options.global_batch}: is of what=batch; leave it out")
    if options.table and options.method != "simulate":
        raise UserError(f"table={options.table}: is made by method=simulate; leave method out")
    return options


def _up_to(key: str, text: str, most: float, unit: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.0 < value <= most:
        raise UserError(f"{key}: {text!r} is not allowed; allowed are {unit} above 0, up to {most:g}")
    return value
