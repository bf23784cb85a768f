"""The command `python -m pmexp_analysis`: the one place that reads arguments and writes files."""

import warnings
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from pmexp.command_line import Command, Given, Key, switch, whole
from pmexp.errors import MachineError, UserError
from pmexp.extras import missing_named
from pmexp.lasting_imports import without_collections
from pmexp.run_folder.failure import FailureKind, kind_of
from pmexp.run_folder.files import write_atomically

if TYPE_CHECKING:
    from pmexp_analysis.figures import Drawn
    from pmexp_analysis.pages.content import Content
    from pmexp_analysis.pages.page import Image
    from pmexp_analysis.sources.experiment import Experiment

_FEW, _DRAWN = 12, 3  # where tasks are few three get figures, else none: each takes seconds


COMMAND = Command(
    "pmexp_analysis",
    "the verdict on an experiment, printed and as HTML, JSON, Markdown, CSV and LaTeX",
    (
        Key("name", "the experiment: a folder of runs_dir, or its name in MLflow"),
        Key("runs_dir", "where the run folders are", "runs"),
        Key("out", "the folder in which <name>/ is written", "reports"),
        Key("baseline", "what is compared with; without it the protocol's"),
        Key("method", "what the criteria judge; without it the protocol's"),
        Key("criteria", "a YAML file with criteria; without it the protocol's"),
        Key("statistics", "import paths of statistics of your own that criteria name: mypkg.a,mypkg.b"),
        Key("compare", "an earlier report.json: says what changed"),
        switch("plan", "what so many seeds can settle, from these runs; no report is written"),
        Key("figures", f"tasks that get figures; without it {_DRAWN}, of more than {_FEW} tasks 0"),
        Key("tracking_uri", "where MLflow is read; without it the run folders are"),
    ),
    word="name",
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the report of one experiment; the exit code: 0 done, 2 input that cannot be used."""
    return COMMAND.run(arguments, lambda given: print(_report(given)))


@missing_named("report")
def _report(given: Given) -> str:
    given.new_folder("out")  # refused before anything is read
    try:
        # Nothing that a report reads is freed before its end, and to search it all takes as long as the rest.
        with without_collections():
            return write_report(given)
    except OSError as error:
        said = f"cannot use {error.filename or given['out']}: {error.strerror or error}"
        raise (MachineError if kind_of(error) is FailureKind.infrastructure else UserError)(said) from None


def write_report(given: Given) -> str:
    """Write the files of <out>/<name>/, attach them in MLflow; the text for the terminal.

    Raises UserError for input that cannot be used, OSError where the files cannot be written.
    """
    name, runs_dir, out = given["name"], given.path("runs_dir"), given.path("out")
    if not name or runs_dir is None or out is None:
        raise UserError("name: is missing; name the experiment")
    text = given.optional("figures")
    figures = whole("figures", text, 0, "number of tasks") if text else None
    from pmexp_analysis.criteria import plan
    from pmexp_analysis.numbers.own_statistics import allow
    from pmexp_analysis.pages import tables  # with pandas and the like, only past --help
    from pmexp_analysis.pages.changes import read_report
    from pmexp_analysis.pages.content import content_of
    from pmexp_analysis.sources.folders import load_runs
    from pmexp_analysis.sources.protocols import Choice

    allow(filter(None, (given.optional("statistics") or "").split(",")))
    earlier_report, tracking_uri = given.path("compare"), given.optional("tracking_uri")
    earlier = read_report(earlier_report) if earlier_report else None
    choice = Choice(given.optional("baseline"), given.optional("method"), given.path("criteria"))
    if tracking_uri is None:
        experiment = load_runs(runs_dir, name, choice)
    else:
        from pmexp_analysis.sources.mlflow import load_mlflow

        experiment = load_mlflow(tracking_uri, name, choice)
    _check_side(given, experiment)
    if given.is_on("plan"):
        return plan.as_text(plan.plans(experiment))
    generated = datetime.now(UTC).isoformat(timespec="seconds")
    content = content_of(experiment, generated, runs_dir / name / "fit", earlier)
    drawn = figures if figures is not None else _DRAWN if len(content.sections) <= _FEW else 0
    paths = _write_files(content, out / name, drawn)
    uris = {tracking_uri} if tracking_uri else experiment.tracking_uris
    words = {"verdict": content.result, "verdict.sentence": content.sentence}
    words |= {f"criterion.{one.name}": f"{one.result}: {one.why}" for one in content.criteria}
    complaints = _attach(name, uris, paths, words) if uris else []
    first = [*content.warnings, *experiment.remarks]
    shown = tables.terminal(content.sections, experiment.missing, content.sentence, content.criteria, first)
    return "\n".join(
        [shown, "", *(str(path) for path in paths if path.suffix in (".html", ".json")), *complaints]
    )


def _attach(name: str, uris: Collection[str], paths: list[Path], words: Mapping[str, str]) -> list[str]:
    from pmexp_analysis.pages.attach import attach  # with MLflow

    return attach(name, uris, paths, words)


def _write_files(content: "Content", folder: Path, drawn_sections: int) -> list[Path]:
    from pmexp_analysis.pages.content import as_json
    from pmexp_analysis.pages.document import as_markdown
    from pmexp_analysis.pages.formats import records_csv
    from pmexp_analysis.pages.page import page_html
    from pmexp_analysis.pages.paper import appendix, main_table

    folder.mkdir(parents=True, exist_ok=True)
    drawn: list[Path] = []
    images: list[list[Image]] = []
    of_all: list[Image] = []
    if drawn_sections or content.limits or content.grids:  # else no figure is worth loading matplotlib for
        images, of_all = _draw(content, folder, drawn_sections, drawn)
    _remove_others(folder / "figures", drawn)
    texts = {
        "report.json": as_json(content),
        "index.html": page_html(content, images, of_all),
        "report.md": as_markdown(content, images, of_all),
        "results.csv": records_csv(content.rows),
        "comparisons.csv": records_csv(content.comparisons),
        "tables.tex": main_table(content),
        "appendix.tex": appendix(content),
        "figures.py": resources.files("pmexp_analysis.pages").joinpath("redraw.py").read_text("utf-8"),
    }
    for name, text in texts.items():
        write_atomically(folder / name, text)
    return [*(folder / name for name in texts), *drawn]


def _draw(
    content: "Content", folder: Path, drawn_sections: int, drawn: list[Path]
) -> tuple[list[list["Image"]], list["Image"]]:
    """(the figures of each of the first sections, those over all tasks); adds their paths to `drawn`."""
    from pmexp_analysis import figures, plots

    looks = plots.styles(content.variants, content.experiment.protocol.baseline)
    images = []
    for place, section in enumerate(content.sections[:drawn_sections], start=1):
        prefix = f"{place}-" if len(content.sections) > 1 else ""
        of_section = _save(figures.of_section(content.experiment, section, looks, prefix), folder, drawn)
        images.append(of_section)
    over = figures.of_experiment(content.experiment, content.limits, content.grids, looks)
    return images, _save(over, folder, drawn)


def _save(figures: Iterable["Drawn"], folder: Path, drawn: list[Path]) -> list["Image"]:
    """Writes figures/<name>.png, .pdf and .svg, adds their paths to `drawn`; the images for the page."""
    from pmexp_analysis import plots
    from pmexp_analysis.pages.page import Image

    (folder / "figures").mkdir(exist_ok=True)
    images = []
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # it is drawn as a box
        for one in figures:
            paths = plots.save(one.figure, folder / "figures" / one.name)
            drawn += paths
            files = [path.name for path in paths]
            images.append(Image(files, one.caption, paths[0].read_bytes(), one.figure.get_figwidth()))
    return images


def _remove_others(folder: Path, drawn: Sequence[Path]) -> None:
    """Figures of an earlier report that this one does not have."""
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.suffix in (".png", ".pdf", ".svg") and path not in drawn:
            path.unlink()


def _check_side(given: Given, experiment: "Experiment") -> None:
    """Raises UserError where no run, finished or not, is of the method or of the baseline that was typed."""
    known = {member.labels.variant for member in experiment.members}
    known |= {one.variant for one in experiment.missing if one.run_id is not None}
    for key in ("baseline", "method"):
        if (side := given.optional(key)) and side not in known:
            there = ", ".join(sorted(known))
            raise UserError(f"{key}={side}: no run is of it; those of {given['name']} are {there}")
