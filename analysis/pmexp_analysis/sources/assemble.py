"""From the runs of any source to an Experiment: what is told apart, and everything missing by name."""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from pmexp.errors import UserError
from pmexp.protocol import ComparedLabel, ProtocolConfig
from pmexp.run_folder.differences import distinct_items
from pmexp_analysis.sources.distinguish import distinguish
from pmexp_analysis.sources.experiment import (
    DIVERGED,
    NO_RUN,
    NOT_PLANNED,
    Experiment,
    Labels,
    Member,
    Missing,
    Run,
)
from pmexp_analysis.sources.foreign import readable, words
from pmexp_analysis.sources.protocols import NO_CHOICE, Choice, protocol_of
from pmexp_analysis.sources.values import values_of

OWN_SYSTEM = "its own"  # stands for the system where arms are compared, each with a system of its own
_TRAINING_SECTIONS = ("train/", "val/", "test/", "ood/", "fgsm/")


def assemble(name: str, source: str, told: Iterable[Run], choice: Choice = NO_CHOICE) -> Experiment:
    """Returns the experiment made of the runs that are `told`; those without a result are its `missing`.

    `choice`: what the reader asks for in the place of the protocol. Raises UserError when no run has
    finished, or two finished runs cannot be told apart.
    """
    runs = list(readable(told))
    name, source = words(name), words(source)
    protocol, remarks = protocol_of(runs, choice)
    told_apart = distinguish({run.run_id: (run.labels, run.settings) for run in runs})
    members = [Member(run, along(protocol.axis, told_apart[run.run_id]), _state(run)) for run in runs]
    finished = [member for member in members if member.run.finals is not None]
    missing = _unfinished(members)
    if not finished:
        known = "none was started"
        if missing:
            first = missing[0]
            known = f"{len(missing)} unfinished, the first: {first.variant} seed {first.seed}, {first.why}"
        raise UserError(
            f"experiment '{name}' has no finished run in {source} ({known});"
            " let its sweep finish, or start it again, then ask for the report"
        )
    _refuse_twins(finished)
    missing += _seeds_that_others_have(finished, missing, protocol) + _diverged(finished)
    environment = _distinct(member.run.environment for member in finished)
    return Experiment(
        name=name,
        source=source,
        members=members,
        values=values_of(finished),
        missing=sorted(missing, key=lambda m: (m.task, m.system, m.variant, m.seed, m.run_id or "")),
        environment=environment,
        counted=_counted(environment),
        protocol=protocol,
        remarks=remarks,
    )


def along(axis: ComparedLabel, labels: Labels) -> Labels:
    """The labels with what is compared in the place of the variant, and all else in the others."""
    if axis is ComparedLabel.arm:
        return labels._replace(variant=f"{labels.variant}-{labels.system}", system=OWN_SYSTEM)
    if axis is ComparedLabel.system:
        return labels._replace(variant=labels.system, system=f"with {labels.variant}")
    return labels


def _state(run: Run) -> str:
    return DIVERGED if run.finals is not None and _not_finite(run.finals) else run.state


def _not_finite(finals: Mapping[str, float]) -> list[str]:
    if not any(map(math.isnan, finals.values())):  # so it is in most runs
        return []
    return sorted(m for m, v in finals.items() if math.isnan(v) and m.startswith(_TRAINING_SECTIONS))


def _unfinished(members: Sequence[Member]) -> list[Missing]:
    done = {member.labels: member.run.run_id for member in members if member.run.finals is not None}
    missing = []
    for member in members:
        if member.run.finals is None:
            why = member.run.why
            if member.labels in done:
                why += f"; run {done[member.labels]} of the same seed finished"
            missing.append(_named(member, why))
    return missing


def _named(member: Member, why: str) -> Missing:
    at = member.labels
    return Missing(at.task, at.system, at.variant, at.seed, member.run.run_id, why, member.state)


def _refuse_twins(finished: Sequence[Member]) -> None:
    first: dict[Labels, str] = {}
    for member in finished:
        at, run_id = member.labels, member.run.run_id
        twin = first.setdefault(at, run_id)
        if twin != run_id:
            raise UserError(
                f"runs {twin} and {run_id} are both {at.task} / {at.system} / {at.variant} / seed {at.seed}"
                " and record no setting that differs, so which one to pair is unclear: give one sweep"
                " another name=, or remove the run that is out of date"
            )


def _seeds_that_others_have(
    finished: Sequence[Member], known: Sequence[Missing], protocol: ProtocolConfig
) -> list[Missing]:
    """The runs that are not known at all, of seeds that another variant has: not planned where a plan has
    the seed, and else of no known reason, such as a folder that was removed.

    A variant that is neither method nor baseline lacks none where the plan has the seed, and none where it is
    a proof, with the baseline's own masks, or the control of masks, which need one seed alone.
    """
    judged = {protocol.baseline, protocol.method}
    of_one_seed = {
        member.labels.variant for member in finished if _needs_one_seed(member.run.settings)
    } - judged
    variants_of: dict[tuple[str, str], dict[str, set[int]]] = defaultdict(lambda: defaultdict(set))
    planned: set[tuple[str, str, int]] = set()
    for at, is_planned in ((member.labels, member.run.is_planned) for member in finished):
        variants_of[at.task, at.system][at.variant].add(at.seed)
        if is_planned:
            planned.add((at.task, at.system, at.seed))
    named = {Labels(m.task, m.system, m.variant, m.seed) for m in known}
    missing = []
    for (task, system), seeds_of in variants_of.items():
        for seed in sorted(set().union(*seeds_of.values())):
            owners = ", ".join(sorted(variant for variant, seeds in seeds_of.items() if seed in seeds))
            why = f"no run of this seed, there is one of {owners}"
            state = NOT_PLANNED if (task, system, seed) in planned else NO_RUN
            missing += [
                Missing(task, system, variant, seed, None, why, state)
                for variant, seeds in seeds_of.items()
                if seed not in seeds
                and variant not in of_one_seed
                and (state != NOT_PLANNED or variant in judged)
                and Labels(task, system, variant, seed) not in named
            ]
    return missing


def _needs_one_seed(settings: Mapping[str, object]) -> bool:
    is_control = settings.get("variant.mask_stream") not in (None, "None")  # text, as MLflow keeps it
    return is_control or settings.get("variant.rng") == "torch"


def _diverged(finished: Sequence[Member]) -> list[Missing]:
    lost = [(member, _not_finite(member.run.finals or {})) for member in finished]
    return [_named(m, f"finished, but not finite: {', '.join(metrics)}") for m, metrics in lost if metrics]


def _counted(environment: Mapping[str, Sequence[str | float]]) -> frozenset[str]:
    """The peak is a count where CUDA's allocator keeps it, and a sample where the operating system does."""
    sources = [str(source) for source in environment.get("peak_memory_source", [])]
    counted = bool(sources) and all(source.startswith("CUDA allocator") for source in sources)
    return frozenset(["memory/peak_bytes"] if counted else [])


def _distinct(environments: Iterable[Mapping[str, str | float]]) -> dict[str, list[str | float]]:
    values: dict[str, set[str | float]] = defaultdict(set)
    for key, value in distinct_items(environments):
        values[key].add(value)
    return {key: sorted(values[key], key=str) for key in sorted(values)}
