"""Writes docs/integration.md: a table of all models, and a section a model."""

from collections.abc import Sequence

import torch
import transformers
from transformers import CONFIG_MAPPING

from pmexp.command.schema import conf_folder
from pmexp.config import ModelKind, Objective, RunConfig
from pmexp.config.kinds import KINDS
from pmexp.integration.cases import LENGTH, Case, cases, configuration, length_of, names
from pmexp.integration.reach import ASKS_FOR_VALUES, CUT_LAYERS, DropoutCall, on_meta
from pmexp.shown import any_layer, one_by_one

LINES = (
    "from pmexp.packed_dropout import PackedDropout, replace_dropout",
    "print(replace_dropout(model, PackedDropout))",
)

_HEAD = """\
# What PM-Drop needs of each model, and what it reaches there

    {command}

made this page, with torch {torch} and transformers {transformers}, from the models' code alone: no data, no
checkpoint, no GPU. What a user writes is one call and its import,

```python
{lines}
```

in a run of this project `variant=pm-drop` and no line. Dropout of attention probabilities under sdpa is
reached where torch computes attention by its math kernel, as the CPU does whenever attention drops. A fused
kernel, as CUDA takes for most attention, draws inside and keeps no mask: there it is reached with one
argument more where the model is made, `attn_implementation="eager"`. The report of a run names the kernel.

*modules* are exchanged, *functions* are modules whose call of `F.dropout` is routed, *sdpa* those whose call
of `F.scaled_dot_product_attention` is, *left* is what is not reached, and the reason stands in the model's
section. *reached* is the share of the elements that pass a dropout of a rate above 0 in one forward in
training on the CPU, counted at each call; the baseline drops as many. *fused* is that share where attention
runs in a fused kernel. *recomputed* is the share whose dropped values `pm-drop-recompute` does not save
either, on the CPU. A `*` in a place stands for the number of the layer."""

_SUMMARY = (
    "| model | attention | lines | modules | functions | sdpa | left | reached | fused | recomputed |",
    "|---|---|---|---|---|---|---|---|---|---|",
)
_PLACES = ("| attention | place | PM-Drop | rate | elements |", "|---|---|---|---|---|")


def page(command: str) -> str:
    """Returns the whole document in Markdown; `command` made it. Takes a minute."""
    models = one_by_one("counting in", names())
    rows = [summary(name, case) for name in models for case in cases(name)]
    head = _HEAD.format(
        command=command,
        torch=torch.__version__.partition("+")[0],
        transformers=transformers.__version__,
        lines="\n\n".join(LINES),
    )
    return "\n\n".join([head, "\n".join([*_SUMMARY, *rows]), *map(section, names())]) + "\n"


def section(name: str) -> str:
    """Returns the section of one of `names()`, in Markdown."""
    config = configuration(name)
    attentions: dict[str, list[str]] = {}  # by row
    for case in cases(name):
        for row in _places(case):
            attentions.setdefault(row, []).append(case.attention)
    rows = [f"| {', '.join(names)} | {row} |" for row, names in attentions.items()]
    about = [*_description(name), f"Rates: {_rates(config)}.", _measurement(config)]
    return "\n".join([f"## {name}", "", *about, "", *_PLACES, *rows])


def summary(name: str, case: Case) -> str:
    """Returns the row of one model under one attention, in Markdown."""
    packed, recomputing, report = case.packed, case.recomputing, case.packed.report
    assert case.stock.elements == packed.elements == recomputing.elements
    cells = [
        f"[{name}](#{name})",
        case.attention,
        f"{len(LINES)}" + ' and `attn_implementation="eager"`' * case.asked_for,
        *(str(len(part)) for part in (report.modules, report.functions, report.attention, report.left)),
        f"{packed.packed_elements / packed.elements:.1%} of {packed.elements:,}",
        f"{(packed.packed_elements - case.stock.attention_elements) / packed.elements:.1%}",
        f"{recomputing.recomputed_elements / recomputing.elements:.1%}",
    ]
    return f"| {' | '.join(cells)} |"


def _places(case: Case) -> list[str]:
    """Returns a row for the places that differ in their layer's number alone and that met the same fate."""
    report = case.packed.report
    fates = [(place, "exchanged") for place in report.modules]
    fates += [(place, "routed") for place in report.functions]
    fates += [(place, "routed where torch takes its math kernel") for place in report.attention]
    fates += [(place, f"left: {reason}") for place, reason in report.left.items()]
    assert {call.place for call in case.packed.calls if call.p > 0} <= {place for place, _ in fates}
    groups: dict[tuple[str, str], list[str]] = {}
    for place, fate in fates:
        groups.setdefault((any_layer(place), fate), []).append(place)
    rows = []
    for (pattern, fate), places in groups.items():
        calls = [call for call in case.packed.calls if call.place in places]
        rate, elements = _rate(calls), sum(call.elements for call in calls if call.p > 0)
        rows.append(f"`{pattern}` x {len(places)} | {fate} | {rate} | {elements:,}")
    return rows


def _rate(calls: Sequence[DropoutCall]) -> str:
    rates = sorted({call.p for call in calls})
    return ", ".join(f"{rate:g}" for rate in rates) or "not called"


def _description(name: str) -> list[str]:
    """Returns the lines of the comment at the head of the model's file in conf/model."""
    file = conf_folder() / "model" / f"{name}.yaml"
    if not file.is_file():
        return ["No option of conf/model: the sizes and rates of transformers, `model.kind` chooses it."]
    return [line[2:] for line in file.read_text().splitlines() if line.startswith("# ")]


def _rates(config: RunConfig) -> str:
    """Lists the rates in the transformers configuration, and its default where the model has another one."""
    kind, chosen = KINDS[config.model.kind], on_meta(config).config
    own = CONFIG_MAPPING[kind.model_type]()
    rates = []
    for name in (*kind.hidden_dropout, *kind.attention_dropout):
        rate, default = getattr(chosen, name), getattr(own, name)
        if rate is not None:  # else it is that of the other dropouts
            another = default is not None and rate != default
            rates.append(f"`{name}` {rate:g}" + (f" ({default:g} in transformers)" if another else ""))
    return ", ".join(rates)


def _measurement(config: RunConfig) -> str:
    if config.takes_images:
        return "Counted on fake tensors: one image."
    if config.model.kind is ModelKind.vilt:
        return (
            f"Counted on the CPU, since its code asks for values: one image and {length_of(config)} tokens, "
            f"in a copy with {CUT_LAYERS} layers."
        )
    if config.model.kind in ASKS_FOR_VALUES:
        return (
            f"Counted on the CPU, since its code asks for values: one sample of {LENGTH} tokens, the "
            f"first of them global, in a copy with {CUT_LAYERS} layers."
        )
    if config.dataset.objective is Objective.seq2seq:
        return f"Counted on fake tensors: one source of {LENGTH} tokens and a target of as many."
    lora = config.model.lora
    adapters = f" It has adapters (LoRA), with a dropout of {lora.dropout:g} each." if lora.rank else ""
    return f"Counted on fake tensors: one sample of {LENGTH} tokens.{adapters}"
