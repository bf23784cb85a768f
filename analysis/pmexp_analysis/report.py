"""The command `python -m pmexp_analysis`: the one place that reads arguments and writes files."""

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from pmexp.errors import UserError


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the report of one experiment; 0, or 2 with one line on stderr for input that cannot be used."""
    args = _parser().parse_args(arguments)
    try:
        print(write_report(args.name, Path(args.runs_dir), Path(args.out), args.baseline, args.tracking_uri))
        sys.stdout.flush()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # the reader, such as `head`, has seen enough; the files are written
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        print(f"error: cannot use {error.filename}: {error.strerror or error}", file=sys.stderr)
        return 2
    return 0


def write_report(name: str, runs_dir: Path, out: Path, baseline: str, tracking_uri: str | None) -> str:
    """Write <out>/<name>/report.json and index.html, attach them in MLflow; the text for the terminal.

    Raises UserError for input that cannot be used, OSError where `out` cannot be written.
    """
    from pmexp_analysis import compare, page, tables  # with pandas and the like, only past --help
    from pmexp_analysis.attach import attach
    from pmexp_analysis.load import load_runs

    if tracking_uri is None:
        experiment = load_runs(runs_dir, name)
    else:
        from pmexp_analysis.load_mlflow import load_mlflow

        experiment = load_mlflow(tracking_uri, name)
    rows = compare.rows(experiment.finals)
    comparisons = compare.comparisons(experiment.finals, baseline)
    parts = tables.sections(rows, comparisons, baseline)
    generated = datetime.now(UTC).isoformat(timespec="seconds")
    folder = out / name
    folder.mkdir(parents=True, exist_ok=True)
    paths = [
        _write(folder / "report.json", page.report_json(experiment, rows, comparisons, generated)),
        _write(folder / "index.html", page.page_html(experiment, parts, generated)),
    ]
    complaints = attach(name, {tracking_uri} if tracking_uri else experiment.tracking_uris, paths)
    return "\n".join([tables.terminal(parts, experiment.missing), "", *map(str, paths), *complaints])


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
        description="Compare the variants of an experiment: print the table, write report.json, index.html.",
    )
    parser.add_argument("name", help="the experiment: a folder under --runs-dir, or its name in MLflow")
    parser.add_argument("--runs-dir", default="runs", help="where the run folders are (default: %(default)s)")
    parser.add_argument("--out", default="reports", help="where <name>/ is written (default: %(default)s)")
    parser.add_argument(
        "--baseline", default="baseline", help="the variant compared with (default: %(default)s)"
    )
    parser.add_argument("--tracking-uri", help="read MLflow at this URI instead of the run folders")
    return parser
