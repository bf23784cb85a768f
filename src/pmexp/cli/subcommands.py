"""Lists the subcommands of `pmexp`. It names modules and imports none: `pmexp --help` needs no other."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Subcommand:
    """A word behind `pmexp`, and the module that `python -m` would run in its place."""

    module: str
    purpose: str
    keys: str = ""  # module:names of its Command, or of what holds several; empty: it takes no keys
    first: tuple[str, ...] = ()  # arguments that the word stands for


FLAGS = ("--help", "--version")  # what may stand in the place of a subcommand
_TRAIN = "pmexp.command.flags:COMMAND"
SUBCOMMANDS = {
    "train": Subcommand("pmexp.train", "one training run", _TRAIN),
    "sweep": Subcommand("pmexp.train", "many runs: every combination of several values", _TRAIN, ("-m",)),
    "runs": Subcommand(
        "pmexp.runs", "what became of runs; runs retry, runs repair", "pmexp.runs.command:LIST RETRY REPAIR"
    ),
    "report": Subcommand("pmexp_analysis", "the verdict on an experiment", "pmexp_analysis.report:COMMAND"),
    "ui": Subcommand("pmexp.tracking.ui", "MLflow's pages of the runs", "pmexp.tracking.ui:COMMAND"),
    "init": Subcommand("pmexp.cli.init", "a study of your own to begin with", "pmexp.cli.init:COMMAND"),
    "data": Subcommand("pmexp.data", "a dataset made ready ahead", "pmexp.data:command"),
    "fit": Subcommand("pmexp.fit", "what fits into a GPU's memory", "pmexp.fit.options:COMMAND"),
    "parity": Subcommand(
        "pmexp.parity", "whether two variants train bit for bit alike", "pmexp.parity.options:COMMAND"
    ),
    "bench": Subcommand("pmexp.bench", "speed and memory beside rivals", "pmexp.bench.options:COMMANDS"),
    "bench-gpu": Subcommand(
        "pmexp.bench.gpu", "what only a CUDA device can settle", "pmexp.bench.gpu.command:COMMAND"
    ),
    "reproduce": Subcommand(
        "pmexp.reproduce", "the study, as much as fits into some hours", "pmexp.reproduce.command:COMMAND"
    ),
    "integration": Subcommand(
        "pmexp.integration", "what the method reaches in each model", "pmexp.integration.command:COMMAND"
    ),
    "zoo": Subcommand("pmexp.zoo", "the method in every class of models", "pmexp.zoo.command:COMMAND"),
    "slurm-resources": Subcommand(
        "pmexp.slurm_resources", "what SLURM jobs ask for, to adapt", "pmexp.slurm_resources:COMMAND"
    ),
    "packed-dropout": Subcommand("pmexp.packed_dropout", "what serves the method on this machine"),
    "completion": Subcommand(
        "pmexp.cli.completion", "completion for bash, zsh or fish", "pmexp.cli.completion:COMMAND"
    ),
}
