"""Composes checked configurations out of `conf/` and overrides, for all entry points. Imports no torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from hydra_plugins.pmexp_launchers.sweep_launcher import SweepLauncher
from pmexp.command import override_effect
from pmexp.command import sweep_product as sweeping
from pmexp.command.chosen_variant import with_classes_chosen, with_own_chosen
from pmexp.command.composition import OWN, Source, composed, ready, whole
from pmexp.command.overrides import key_of, parsed
from pmexp.command.schema import launchers, options_of_pmexp
from pmexp.config import RunConfig, share_trainings
from pmexp.errors import SweepAsked, UserError
from pmexp.extras import missing_named


@dataclass(frozen=True)
class Sweep:
    """Holds the runs of a sweep, and what launches them."""

    runs: list[RunConfig]
    launcher: SweepLauncher


def compose(overrides: Sequence[str], source: Source = OWN) -> RunConfig:
    """The configuration of one run. Raises UserError and what `explain` puts into words."""
    typed = with_classes_chosen(parsed(with_own_chosen(overrides)))
    with ready(typed, source):
        chosen = composed(typed, source)
        parameters = sweeping.with_parameters(chosen.whole.hydra.sweeper.params, typed)
        override_effect.check_pinned(chosen.whole, typed, sweeping.size(parameters))
        return _not_borrowed(chosen.run())


def compose_run(overrides: Sequence[str], source: Source = OWN) -> RunConfig:
    """Returns what `compose` does, and raises UserError for a key that the run has no use for."""
    run, typed = compose(overrides, source), parsed(with_own_chosen(overrides))
    if run.share_training and "share_training" in map(key_of, typed):
        said = "share_training: is about the runs of a sweep"
        raise SweepAsked(said, "add -m, or leave it out", "leave it out")
    override_effect.check_effect([run], [typed])
    return run


def compose_sweep(overrides: Sequence[str], source: Source = OWN) -> Sweep:
    """The runs of a sweep and what executes them. Raises UserError and what `explain` puts into words."""
    typed = parsed(with_own_chosen(overrides), sweep=True)
    with ready(typed, source):
        loader = GlobalHydra.instance().config_loader()
        for override in typed:
            override.config_loader = loader  # for the options that glob() chooses from
        of_hydra = [override for override in typed if override.is_hydra_override()]
        of_runs = [override for override in typed if not override.is_hydra_override()]
        first = next(sweeping.combinations(of_runs))
        one = composed([*of_hydra, *with_classes_chosen(first)], source).whole
        launcher, parameters = _launcher(one), one.hydra.sweeper.params
        for override in of_runs if parameters else ():
            if override.is_sweep_override() and override.key_or_group == "experiment":
                raise UserError(f"{override.input_line}: these are sweeps themselves; start one at a time")
        product = sweeping.with_parameters(parameters, of_runs)
        given = list(sweeping.combinations(product))
        if arm := sweeping.beside(parameters, of_runs, product):
            given += sweeping.combinations(arm)
        runs = []
        for each in given:
            chosen = composed([*of_hydra, *with_classes_chosen(each)], source)
            if chosen.whole is not one and chosen.whole.hydra.sweeper.params != parameters:
                line = " ".join(str(override.input_line) for override in each)
                raise UserError(f"{line}: is a sweep of its own; start one at a time")
            runs.append(_not_borrowed(chosen.run()))
        override_effect.check_effect(runs, given)
        return Sweep(share_trainings(runs), launcher)


def check(overrides: Sequence[str], source: Source) -> list[str]:
    """The overrides as Hydra has to read them. Raises UserError as `compose` does, but for an open sweep."""
    typed = with_classes_chosen(parsed(with_own_chosen(overrides), launches=True))
    with ready(typed, source):
        whole(typed, source)
    return [str(override.input_line) for override in typed]


def compose_part(group: str, overrides: Sequence[str]) -> Any:
    """The checked configuration of one group alone, whatever the rest of the run may be."""
    typed = parsed(overrides)
    with ready(typed):
        return OmegaConf.to_object(whole(typed)[group])


def launcher(overrides: Sequence[str]) -> SweepLauncher:
    """The launcher of `pmexp sweep <overrides>`, for runs that need not be composed."""
    typed = parsed(overrides, sweep=True)
    with ready(typed):
        return _launcher(whole(typed))


def _not_borrowed(run: RunConfig) -> RunConfig:
    """The run. Raises UserError where its own code would be taken for a variant of pmexp, by its name."""
    variant = run.variant
    if variant.own_code and variant.name in {*options_of_pmexp("variant")} - {"own"}:
        key, path = next(iter(variant.own_code.items()))
        raise UserError(
            f"{key}={path}: would be taken for variant={variant.name}, whose name it has; write variant=own "
            f"{key}={path}, or give it a name of its own by variant.name"
        )
    return run


def _launcher(config: DictConfig) -> SweepLauncher:
    target = config.hydra.launcher.get("_target_")
    if target not in [conf._target_ for conf in launchers().values()]:
        raise UserError(f"hydra/launcher: is none of pmexp; allowed are {', '.join(launchers())}")
    with missing_named():
        import_module(target.rpartition(".")[0])  # an import that fails is put into other words by Hydra
    chosen: SweepLauncher = instantiate(config.hydra.launcher)
    return chosen
