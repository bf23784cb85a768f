"""Lists the runs of a sweep, as the overrides of each. Imports no torch."""

import itertools
import math
import shlex
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal

from hydra.core.override_parser.types import Override, RangeSweep

from pmexp.command.overrides import key_of, parsed, refuse_contradictions
from pmexp.errors import UserError, error_line

ALSO = "also"  # among an experiment's parameters: a smaller product beside that of the others
_MOST = 100_000  # runs of a sweep


def with_parameters(parameters: Mapping[str, str] | None, typed: Sequence[Override]) -> list[Override]:
    """What an experiment sweeps over, in its order, with what was typed in its place and after it."""
    swept = {key: value for key, value in (parameters or {}).items() if key != ALSO}
    own = {key: parsed([f"{key}={value}"], sweep=True)[0] for key, value in swept.items()}
    return list({**own, **{key_of(override): override for override in typed}}.values())


def beside(
    parameters: Mapping[str, str] | None, typed: Sequence[Override], product: Sequence[Override]
) -> list[Override]:
    """The arms that an experiment has beside its `product`: values such as `variant=x,y seed=0` in the place
    of the product's; of a key that was typed those that were typed. Empty where there are none, and where all
    of its keys were typed, which the product then holds.

    Raises UserError for a key that the experiment does not sweep over.
    """
    given = {key_of(override): override for override in typed}
    own = {key_of(one): one for one in parsed(shlex.split((parameters or {}).get(ALSO, "")), sweep=True)}
    for key, override in own.items():
        if key not in (parameters or {}):
            raise UserError(
                f"hydra.sweeper.params.{ALSO}: {override.input_line} is about a key that the experiment does "
                "not sweep over; add the key to hydra.sweeper.params"
            )
        if key in given:
            both = [value for value in _values(override) if value in _values(given[key])]
            if not both:
                return []
            values = ",".join(value.partition("=")[2] for value in both)
            own[key] = parsed([f"{key}={values}"], sweep=True)[0]
    return [own.get(key_of(override), override) for override in product] if own.keys() - given else []


def size(overrides: Sequence[Override]) -> int:
    """How many runs they are. Raises UserError for more than anybody means."""
    runs = math.prod(len(_values(override)) for override in overrides)
    if runs > _MOST:
        sweeps = " ".join(str(override.input_line) for override in overrides if override.is_sweep_override())
        raise UserError(f"{sweeps}: are more than {_MOST} runs; give fewer values")
    return runs


def combinations(overrides: Sequence[Override]) -> Iterator[list[Override]]:
    """The overrides of each run, the last key's values changing fastest."""
    size(overrides)
    choices = [[parsed([value])[0] for value in _values(override)] for override in overrides]
    for each in itertools.product(*choices):
        refuse_contradictions(each)
        yield list(each)


def _values(override: Override) -> list[str]:
    """An override for each value."""
    if not override.is_sweep_override():
        return [str(override.input_line)]
    sweep = override.value()
    if isinstance(sweep, RangeSweep) and not (isinstance(sweep.start, int) and isinstance(sweep.step, int)):
        for end in ("start", "stop", "step"):  # as they were typed: 0.1 + 0.1 + 0.1 is 0.3
            setattr(sweep, end, Decimal(str(getattr(sweep, end))))
    try:
        values = itertools.islice(override.sweep_string_iterator(), _MOST + 1)
        chosen = [f"{override.get_key_element()}={value}" for value in values]
    except Exception as error:  # a step of 0, for one
        raise UserError(f"{override.input_line}: {error_line(error)}") from None
    if not chosen:
        raise UserError(f"{override.input_line}: has no value; give one or more")
    return chosen
