"""Writes the certificate as a page in Markdown."""

from collections.abc import Iterable, Sequence

from pmexp.parity.certificate import Certificate
from pmexp.shown import markdown_table

_KINDS = {
    "forward": "an output of a module",
    "backward": "a gradient by an output",
    "gradient": "a parameter's gradient before clipping",
    "update": "a parameter after the step",
}


def page(record: Certificate) -> str:
    """Returns the page: the verdict first, then what was compared, where it differs, and what it ran on."""
    a, b = record["a"], record["b"]
    blocks = [
        f"# {a['label']} and {b['label']}: {record['verdict']}",
        f"**{record['sentence']}.**",
        f"    {record['command']}",
        "Both sides were prepared as `pmexp train` prepares a run, and took the same steps on the "
        "same batches, from the same weights and the same state of the random number generator. The "
        "outputs of all modules, the gradients by them and by the parameters, and the parameters after each "
        "step were compared bit for bit.",
        markdown_table(("", "a", "b"), _sides(record)),
    ]
    if record["first_of_kind"]:
        blocks += [
            f"## Where they differ in step {record['first_difference']['step']}",
            f"{record['tensors_differing']} tensors of this step differ. The first of each kind:",
            markdown_table(("", "tensor", "elements", "units", "explained by rounding"), _places(record)),
            record["rounding_rule"],
        ]
    for side, names in record["only_in"].items():
        if names:
            blocks.append(
                f"{len(names)} tensors are in {side} alone and were not compared, the first: {names[0]}."
            )
    blocks += [
        "## Losses",
        markdown_table(("step", "a", "b"), _losses(a["losses"], b["losses"])),
        "## Ran on",
        markdown_table(
            ("", ""), [*record["environment"].items(), *record["inputs"].items(), ("time", record["time"])]
        ),
    ]
    return "\n\n".join(blocks) + "\n"


def _sides(record: Certificate) -> Iterable[Sequence[object]]:
    a, b = record["a"], record["b"]
    for name, key in (("dropout", "dropout"), ("precision", "precision"), ("run", "run_id")):
        yield name, a[key] or "-", b[key] or "-"
    for name, key in (("dropout modules replaced", "modules"), ("functional calls routed", "functions")):
        yield name, *(len(side["replacement"][key]) for side in (a, b))
    yield "places left as they are", *(len(side["replacement"]["left"]) for side in (a, b))
    yield "weights before", record["weights_before"], record["weights_before"]
    yield "weights after", a["weights_after"], b["weights_after"]


def _places(record: Certificate) -> Iterable[Sequence[object]]:
    for kind, place in record["first_of_kind"].items():
        rounding = place["rounding"]
        explained = {True: "yes", False: "no", None: "not judged"}[rounding and rounding["explained"]]
        units = "-" if place["units"] is None else f"{place['units']:.10g}"
        yield _KINDS[kind], place["name"], f"{place['differing']} of {place['elements']}", units, explained


def _losses(a: Sequence[float], b: Sequence[float]) -> Iterable[Sequence[object]]:
    for step, (one, other) in enumerate(zip(a, b, strict=True), start=1):
        yield step, repr(one), repr(other)
