"""The command `python -m pmexp_analysis`: the one place that reads arguments and writes files."""

import argparse
import os
import sys
import tempfile
import warnings
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from pmexp.errors import MachineError, UserError
from pmexp.run_folder.failure import FailureKind, kind_of
from pmexp.run_folder.place import refuse_unusable
from pmexp_analysis.sources.foreign import words

if TYPE_CHECKING:
    from pmexp_analysis.figures import Drawn
    from pmexp_analysis.pages.content import Content
    from pmexp_analysis.pages.page import Image

_FEW, _DRAWN = 12, 3  # of few tasks and systems three get figures, of more one: each takes seconds


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the report of one experiment; 0, or with one line on stderr 1 for a machine that fails, such as a
    full disk, and 2 for input that cannot be used."""
    args = _parser().parse_args(arguments)
    try:
        refuse_unusable(args.out / args.name, "--out")
        print(write_report(args))
        sys.stdout.flush()
    except (UserError, MachineError) as error:
        return _end(str(error), 2 if isinstance(error, UserError) else 1)
    except BrokenPipeError:  # the reader, such as `head`, has seen enough; the files are written
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        said = f"cannot use {error.filename or args.out / args.name}: {error.strerror or error}"
        return _end(said, 1 if kind_of(error) is FailureKind.infrastructure else 2)
    return 0


def _end(said: str, code: int) -> int:
    print(f"error: {words(said)}", file=sys.stderr)
    return code


def write_report(args: argparse.Namespace) -> str:
    """Write the files of <out>/<name>/, attach them in MLflow; the text for the terminal.

    Raises UserError for input that cannot be used, OSError where the files cannot be written.
    """
    from pmexp_analysis.pages import tables  # with pandas and the like, only past --help
    from pmexp_analysis.pages.attach import attach
    from pmexp_analysis.pages.changes import read_report
    from pmexp_analysis.pages.content import content_of
    from pmexp_analysis.sources.folders import load_runs
    from pmexp_analysis.sources.protocols import Choice

    earlier = read_report(args.compare) if args.compare else None
    choice = Choice(args.baseline, args.method, args.criteria)
    if args.tracking_uri is None:
        experiment = load_runs(args.runs_dir, args.name, choice)
    else:
        from pmexp_analysis.sources.mlflow import load_mlflow

        experiment = load_mlflow(args.tracking_uri, args.name, choice)
    generated = datetime.now(UTC).isoformat(timespec="seconds")
    content = content_of(experiment, generated, args.runs_dir / args.name / "fit", earlier)
    drawn = args.figures if args.figures is not None else _DRAWN if len(content.sections) <= _FEW else 1
    paths = _write_files(content, args.out / args.name, drawn)
    uris = {args.tracking_uri} if args.tracking_uri else experiment.tracking_uris
    words = {"verdict": content.result, "verdict.sentence": content.sentence}
    words |= {f"criterion.{one.name}": f"{one.result}: {one.why}" for one in content.criteria}
    complaints = attach(args.name, uris, paths, words)
    shown = tables.terminal(content.sections, experiment.missing, content.sentence, content.criteria)
    return "\n".join(
        [shown, "", *(str(path) for path in paths if path.suffix in (".html", ".json")), *complaints]
    )


def _write_files(content: "Content", folder: Path, drawn_sections: int) -> list[Path]:
    from pmexp_analysis import figures, plots
    from pmexp_analysis.pages.content import as_json
    from pmexp_analysis.pages.document import as_latex, as_markdown
    from pmexp_analysis.pages.formats import records_csv
    from pmexp_analysis.pages.page import page_html

    folder.mkdir(parents=True, exist_ok=True)
    looks = plots.styles(content.variants, content.experiment.protocol.baseline)
    drawn: list[Path] = []
    images = []
    for place, section in enumerate(content.sections[:drawn_sections], start=1):
        prefix = f"{place}-" if len(content.sections) > 1 else ""
        of_section = _save(figures.of_section(content.experiment, section, looks, prefix), folder, drawn)
        images.append(of_section)
    over = figures.of_experiment(content.experiment, content.limits, content.grids, looks)
    of_all = _save(over, folder, drawn)
    _remove_others(folder / "figures", drawn)
    texts = {
        "report.json": as_json(content),
        "index.html": page_html(content, images, of_all),
        "report.md": as_markdown(content),
        "results.csv": records_csv(content.rows),
        "comparisons.csv": records_csv(content.comparisons),
        "tables.tex": as_latex(content),
    }
    return [*(_write(folder / name, text) for name, text in texts.items()), *drawn]


def _save(figures: Iterable["Drawn"], folder: Path, drawn: list[Path]) -> list["Image"]:
    """Writes figures/<name>.png and .pdf, adds their paths to `drawn`; the images for the page."""
    from pmexp_analysis import plots
    from pmexp_analysis.pages.page import Image

    (folder / "figures").mkdir(exist_ok=True)
    images = []
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # of a name: drawn as a box
        for one in figures:
            png, pdf = plots.save(one.figure, folder / "figures" / one.name)
            drawn += [png, pdf]
            images.append(Image(one.caption, png.read_bytes(), one.figure.get_figwidth()))
    return images


def _remove_others(folder: Path, drawn: Sequence[Path]) -> None:
    """Figures of an earlier report that this one does not have."""
    for path in [*folder.glob("*.png"), *folder.glob("*.pdf")]:
        if path not in drawn:
            path.unlink()


def _write(path: Path, text: str) -> Path:
    """Put `text` at `path` in one move: a reader sees the old file or the new one, never a part."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(temporary, 0o644)  # mkstemp makes files that only the owner can read
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    return path


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m pmexp_analysis",
        description="The verdict on an experiment, printed and as HTML, JSON, Markdown, CSV and LaTeX.",
    )
    parser.add_argument("name", help="the experiment: a folder under --runs-dir, or its name in MLflow")
    parser.add_argument(
        "--runs-dir", type=Path, default=Path("runs"), help="where the run folders are (%(default)s)"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("reports"), help="where <name>/ is written (%(default)s)"
    )
    parser.add_argument("--baseline", help="what is compared with, in the place of the protocol's")
    parser.add_argument("--method", help="what the criteria judge, in the place of the protocol's")
    parser.add_argument(
        "--criteria", type=Path, metavar="YAML", help="criteria in the place of the protocol's"
    )
    parser.add_argument(
        "--compare", type=Path, metavar="JSON", help="an earlier report.json: say what changed"
    )
    parser.add_argument("--figures", type=int, help="tasks that get figures (3, of more than 12 tasks 1)")
    parser.add_argument("--tracking-uri", help="read MLflow at this URI instead of the run folders")
    return parser
