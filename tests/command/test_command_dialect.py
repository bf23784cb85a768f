"""One dialect: every command has --help with all its keys, takes key=value and --key value, and names the nearest."""

import ast
import errno
import importlib
import os
import pty
import runpy
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from rich.console import Console

from pmexp import data, slurm_resources
from pmexp.bench import command as bench
from pmexp.bench import dram
from pmexp.bench.gpu import command as bench_gpu
from pmexp.bench.host import command as bench_host
from pmexp.bench.options import COMMANDS as BENCH
from pmexp.cli import completion, init
from pmexp.cli.subcommands import SUBCOMMANDS
from pmexp.command.flags import COMMAND as TRAIN
from pmexp.command_line import Command, Key, nearest, whole
from pmexp.errors import (
    ContenderFailed,
    Interrupted,
    MachineError,
    Preempted,
    RankFailed,
    SweepFailed,
    UserError,
)
from pmexp.fit import command as fit
from pmexp.integration import command as integration
from pmexp.parity import command as parity
from pmexp.reproduce import command as reproduce
from pmexp.runs import command as runs
from pmexp.shown import WIDTH
from pmexp.tracking import ui
from pmexp.zoo import command as zoo
from pmexp_analysis import benchmark, report
from pmexp_analysis.pages import readme
from typed_commands import train_main

ROOT = Path(__file__).parents[2]

Main = Callable[[list[str]], int]


def kernel_code_main(arguments: list[str]) -> int:
    pytest.importorskip("triton", reason="the command reads kernels of Triton")
    module = importlib.import_module("pmexp.bench.kernel_code")
    code: int = module.main(arguments)
    return code


KERNEL_CODE = Command("pmexp.bench.kernel_code", "", (Key("out", ""),))

COMMANDS: dict[str, tuple[Main, tuple[str, ...], Command]] = {  # what is typed before the keys, and the keys
    "pmexp.train": (train_main, (), TRAIN),
    "pmexp.data": (data.main, (), data.command()),
    "pmexp.fit": (fit.main, (), fit.COMMAND),
    **{f"pmexp.bench level={name}": (bench.main, (f"level={name}",), one) for name, one in BENCH.items()},
    "pmexp.bench.gpu": (bench_gpu.main, (), bench_gpu.COMMAND),
    "pmexp.bench.host": (bench_host.main, (), bench_host.COMMAND),
    "pmexp.bench.kernel_code": (kernel_code_main, (), KERNEL_CODE),
    "pmexp.bench.dram": (dram.main, (), dram.COMMAND),
    "pmexp.cli.init": (init.main, (), init.COMMAND),
    "pmexp.cli.completion": (completion.main, (), completion.COMMAND),
    "pmexp.integration": (integration.main, (), integration.COMMAND),
    "pmexp.parity": (parity.main, (), parity.COMMAND),
    "pmexp.reproduce": (reproduce.main, (), reproduce.COMMAND),
    "pmexp.runs": (runs.main, (), runs.LIST),
    "pmexp.runs retry": (runs.main, ("retry",), runs.RETRY),
    "pmexp.runs repair": (runs.main, ("repair",), runs.REPAIR),
    "pmexp.slurm_resources": (slurm_resources.main, (), slurm_resources.COMMAND),
    "pmexp.zoo": (zoo.main, (), zoo.COMMAND),
    "pmexp.tracking.ui": (ui.main, (), ui.COMMAND),
    "pmexp_analysis": (report.main, (), report.COMMAND),
    "pmexp_analysis.benchmark": (benchmark.main, (), benchmark.COMMAND),
    "pmexp_analysis.pages.readme": (readme.main, (), readme.COMMAND),
}

WITHOUT_KEYS = {"pmexp.packed_dropout"}

CHOOSES_ONE_OF_THEM = {"pmexp"}

LEFT_BESIDE_A_REPORT = {"pmexp_analysis.pages.redraw"}  # figures.py, which needs matplotlib and pandas alone

ABOUT_PMEXP_ITSELF = {  # what `make` and its developers run, and no subcommand is for
    "pmexp.bench.kernel_code", "pmexp.bench.dram", "pmexp_analysis.benchmark", "pmexp_analysis.pages.readme",
    "pmexp.bench.host",
}  # fmt: skip

STARTED_BY_OTHERS = {  # with arguments in an order of their own, by the process that needs them
    "pmexp.training.rank", "pmexp.bench.gpu.stage_process", "pmexp.bench.gpu.compile_share",
    "pmexp.bench.bare_start",
}  # fmt: skip

ONE_FILE = {  # what out= names; the other commands write several files into a folder
    "pmexp.fit": ".json", "pmexp.zoo": ".md", "pmexp.integration": ".md", "pmexp.bench.gpu": ".md",
    "pmexp.bench.kernel_code": ".md", "pmexp.bench.host": ".md", "pmexp.bench.dram": ".json",
}  # fmt: skip
NEEDED = {  # keys without which a command does not get as far as out=
    "pmexp.bench.gpu": ["device=cpu", "size=tiny"], "pmexp.bench.dram": ["csv=x", "elements=1"],
    "pmexp_analysis": ["demo"],
}  # fmt: skip
WRITING = [name for name, (_, _, one) in COMMANDS.items() if "out" in [key.name for key in one.keys]]

every_command = pytest.mark.parametrize("name", COMMANDS)


@contextmanager
def written_to_nobody(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Makes stdout a pipe whose other end is closed."""
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "w", buffering=1) as pipe, monkeypatch.context() as patched:
        patched.setattr(sys, "stdout", pipe)
        yield


def entry_points() -> Iterator[str]:
    for root in ("src", "launchers", "analysis"):
        for file in (ROOT / root).rglob("*.py"):
            parts = file.relative_to(ROOT / root).with_suffix("").parts
            if file.name == "__main__.py":
                yield ".".join(parts[:-1])
            elif any(
                ast.unparse(node).startswith("if __name__ ==") for node in ast.parse(file.read_text()).body
            ):
                yield ".".join(parts)


def test_every_entry_point_speaks_it() -> None:
    spoken = {name.partition(" ")[0] for name in COMMANDS}
    assert (
        set(entry_points())
        == spoken | WITHOUT_KEYS | CHOOSES_ONE_OF_THEM | LEFT_BESIDE_A_REPORT | STARTED_BY_OTHERS
    )


def test_every_command_for_people_is_a_subcommand_of_pmexp() -> None:
    spoken = {name.partition(" ")[0] for name in COMMANDS} | WITHOUT_KEYS
    assert {one.module for one in SUBCOMMANDS.values()} == spoken - ABOUT_PMEXP_ITSELF


@every_command
def test_help_names_every_key_with_its_default(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    main, before, command = COMMANDS[name]
    assert main([*before, "--help"]) == 0
    printed, errors = capsys.readouterr()
    assert not errors
    for key in command.keys:
        rows = [line.split() for line in printed.splitlines()]
        if name == "pmexp.train":
            assert f"{key.name}: {key.default}" in printed
        else:
            assert any(row[:2] == [key.name, key.default.split(" ")[0] or "-"] for row in rows), key.name
            assert key.meaning in " ".join(printed.split()) and max(map(len, printed.splitlines())) <= WIDTH


@every_command
def test_an_unknown_key_is_one_line_that_names_the_nearest(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    main, before, command = COMMANDS[name]
    meant = command.keys[-1].name
    misspelt = "sede" if name == "pmexp.train" else meant[:-1] + "zz"
    meant = "seed" if name == "pmexp.train" else meant
    assert main([*before, f"{misspelt}=1"]) == 2
    printed, error = capsys.readouterr()
    assert printed == "" and error.count("\n") == 1
    assert error.startswith("error: ") and f"{misspelt} is not a key; did you mean {meant}? " in error
    assert "allowed are " in error or "--help lists the keys" in error


@pytest.mark.parametrize("name", [name for name, (_, _, one) in COMMANDS.items() if one.others])
def test_no_error_suggests_what_was_typed(name: str) -> None:
    command = COMMANDS[name][2]
    assert command.others
    for key in [*command.others.names()][::7]:
        for typed in (key, f"{key}=3"):
            said = ""
            try:
                command.read([typed])
            except UserError as error:
                said = str(error)
            assert f"did you mean {key}?" not in said


@pytest.mark.parametrize("name", WRITING)
def test_a_place_for_results_is_refused_before_the_work(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    main, before, _ = COMMANDS[name]
    extension = ONE_FILE.get(name, "")
    (tmp_path / f"there{extension}").mkdir() if extension else (tmp_path / "there").touch()
    wrong = {
        f"there{extension}": "name another",
        f"/dev/null/x{extension}": "name another place",
        f"{'x' * 300}{extension}": "name another place",
        "x.html": f"name a file with {extension}" if extension else "name a folder",
    }
    for typed, remedy in wrong.items():
        assert main([*before, *NEEDED.get(name, []), f"out={typed}"]) == 2
        printed, error = capsys.readouterr()
        assert printed == "" and error.startswith("error: out: ") and error.count("\n") == 1, error
        assert typed.removesuffix(f"/x{extension}") in error and remedy in error
    assert len(list(tmp_path.iterdir())) == 1


def test_a_missing_folder_is_made_once_there_is_something_to_write(tmp_path: Path) -> None:
    command = Command("pmexp.pages", "a page", (Key("out", "its file"),))
    page = tmp_path / "new" / "below" / "page.md"
    given = command.read([f"out={page}"])
    with pytest.raises(ZeroDivisionError):
        given.write_page("out", lambda: str(1 // 0))
    assert not page.parent.parent.exists()
    for text in ("old", "new"):
        given.write_page("out", lambda text=text: text)  # type: ignore[misc]
        assert page.read_text() == text


@every_command
def test_a_flag_is_the_key(name: str) -> None:
    _, _, command = COMMANDS[name]
    for key in command.keys:
        value = (key.allowed or ("7",))[0]
        flag = f"--{key.name.replace('_', '-')}"
        rest = [f"{one.name}={one.allowed[0]}" for one in command.keys if one.allowed and one is not key]
        as_key = command.read([*rest, f"{key.name}={value}"])
        assert as_key[key.name] == value
        spellings = [[flag, value], [f"{flag}={value}"]]
        if key.allowed == ("true", "false"):
            spellings += [[flag], [flag, value, *rest]]
        spellings += [[value]] if command.word == key.name else []
        for spelling in spellings:
            given = command.read([*rest, *spelling])
            assert (given.values, given.set, given.others) == (as_key.values, as_key.set, as_key.others)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["runs_dir="], "runs_dir=: has no value; write runs_dir=VALUE or leave it out"),
        (["--runs-dir"], "--runs-dir: has no value; write runs_dir=VALUE or leave it out"),
        (["--runs-dir", "--json"], "--runs-dir: has no value"),
        (["--rnus-dir", "x"], "--rnus-dir: rnus_dir is not a key; did you mean runs_dir? --help lists "),
        (["runs_dir=a", "--runs-dir", "b"], "runs_dir=a and runs_dir=b are given for the same key; leave one"),
        (["demo", "other"], "other: other is not a key"),
        (["demo", "seed"], "seed: has no value; write seed=VALUE"),
        (["json=maybe"], "json: 'maybe' is unknown; allowed are true, false"),
        (["-x"], "-x: -x is not a key"),
        (["=3"], "=3: names no key; write key=value"),
        (["-=3"], "-=3: names no key; write key=value"),
        (["--"], "--: names no key; write key=value"),
        (["variant= "], "variant= : has no value; write variant=VALUE or leave it out"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_one_line(arguments: list[str], message: str) -> None:
    with pytest.raises(UserError) as refused:
        runs.LIST.read(arguments)
    assert str(refused.value).startswith(message)


@pytest.mark.parametrize(
    ("raised", "code", "said"),
    [
        (None, 0, ""),
        (UserError("x: is no y"), 2, "error: x: is no y\n"),
        (SweepFailed("2 of 3 runs failed"), 1, "2 of 3 runs failed\n"),
        (RankFailed("rank 1 failed"), 1, "rank 1 failed\n"),
        (ContenderFailed("it is no dropout"), 1, "error: it is no dropout\n"),
        (MachineError("no room"), 3, "error: no room\n"),
        (OSError(errno.EIO, "Input/output error"), 3, "error: OSError: [Errno 5] Input/output error\n"),
        (Interrupted(), 130, "go on\n"),
        (Preempted("at step 3"), 130, "interrupted: at step 3\n"),
        (KeyboardInterrupt(), 130, "go on\n"),
    ],
)
def test_each_end_has_its_code(
    raised: BaseException | None, code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def work(_: object) -> None:
        if raised is not None:
            raise raised

    assert runs.LIST.run([], work, interrupted="go on") == code
    assert capsys.readouterr().err == said


@pytest.mark.parametrize(("arguments", "code"), [([], 0), (["--help"], 0), (["bits=1"], 2)])
def test_the_method_says_what_serves_it(
    arguments: list[str], code: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is run without pmexp's other packages, so that it has no keys and reads its arguments itself."""
    monkeypatch.setattr(sys, "argv", ["packed_dropout", *arguments])
    ended = 0
    try:
        runpy.run_module("pmexp.packed_dropout", run_name="__main__")
    except SystemExit as end:
        ended = int(str(end.code))
    printed, error = capsys.readouterr()
    assert ended == code and printed.count("\n") + error.count("\n") >= 1
    if code:
        assert printed == "" and error == "error: bits=1: packed dropout takes no keys; leave it out\n"


@every_command
def test_a_reader_who_has_seen_enough_ends_it_quietly(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As behind `| head`: the pipe has no reader any more."""
    main, before, _ = COMMANDS[name]
    with written_to_nobody(monkeypatch):
        assert main([*before, "--help"]) == 0
    assert capsys.readouterr().err == ""


def test_work_is_done_though_nobody_reads_of_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    done = []

    def work(_: object) -> int:
        Console().print("a view of a sweep")
        for number in range(3):
            print("x" * 100_000, flush=number > 0)
            done.append(number)
        return 1

    with written_to_nobody(monkeypatch):
        assert runs.LIST.run([], work) == 1
    assert done == [0, 1, 2] and capsys.readouterr().err == ""


def test_work_is_done_though_the_terminal_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """As after a lost connection, where nohup or the shell had the command outlive that."""
    terminal, ours = pty.openpty()
    done = []

    def work(_: object) -> int:
        os.close(terminal)
        for stream in (sys.stdout, sys.stderr):
            Console(file=stream).print("a view of a sweep")
            for number in range(3):
                print("x" * 100_000, file=stream, flush=number > 0)
                done.append(number)
        raise UserError("which nobody reads")

    with open(ours, "w") as out, open(os.dup(ours), "w") as err, monkeypatch.context() as patched:
        patched.setattr(sys, "stdout", out)
        patched.setattr(sys, "stderr", err)
        assert runs.LIST.run([], work) == 2
    assert done == [0, 1, 2, 0, 1, 2]


def test_a_disk_that_fails_is_no_terminal_that_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    def work(_: object) -> None:
        print("x", flush=True)

    with monkeypatch.context() as patched, suppress(OSError), open("/dev/full", "w") as full:
        patched.setattr(sys, "stdout", full)
        assert runs.LIST.run([], work) == 3


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_work_is_done_though_an_output_was_closed_before(
    stream: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by >&- or 2>&-."""
    monkeypatch.setattr(sys, stream, None)
    assert runs.LIST.run([], lambda _: print("x", file=getattr(sys, stream))) == 0
    getattr(sys, stream).close()


@pytest.mark.parametrize("word", ["", "completion"])
def test_an_error_that_nobody_can_read_is_not_printed_as_a_result(word: str, tmp_path: Path) -> None:
    """Where 2>&- closed stderr, Python prints to stdout what is meant for it, and gives the next file its number."""
    code = "import os, sys\nfrom pmexp.cli.main import main\nended = main()\nos.fstat(2)\nsys.exit(ended)"
    line = 'exec "$0" -c "$1" $2 no-such-shell 2>&-'
    done = subprocess.run(
        ["sh", "-c", line, sys.executable, code, word], cwd=tmp_path, stdout=subprocess.PIPE
    )
    assert (done.returncode, done.stdout) == (2, b"")


@pytest.mark.parametrize("words", [["runs"], ["bench", "level=micro"], ["-m", "pmexp.bench", "level=micro"]])
def test_a_working_folder_that_is_gone_is_one_line(words: list[str], tmp_path: Path) -> None:
    entry = [] if words[0] == "-m" else ["-c", "from pmexp.cli.main import main; raise SystemExit(main())"]
    (tmp_path / "gone").mkdir()
    line = 'cd gone; rmdir ../gone; exec "$@"'
    command = ["sh", "-c", line, "sh", sys.executable, *entry, *words]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    said = "error: the working folder is gone; change to one that is there\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", said)


@pytest.mark.parametrize("arguments", [[], ["--help"]])
def test_so_does_one_who_asks_what_serves_the_method(
    arguments: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["packed_dropout", *arguments])
    with written_to_nobody(monkeypatch), pytest.raises(SystemExit) as end:
        runpy.run_module("pmexp.packed_dropout", run_name="__main__")
    assert end.value.code == 0 and capsys.readouterr().err == ""


@pytest.mark.parametrize("text", ["9" * 5000, "0", "-1", "1.0", "1e3", "", "²", "ten", "0x10", "1_000", " 1"])
def test_what_is_no_whole_number_is_one_line(text: str) -> None:
    with pytest.raises(UserError, match=r"^steps: '.*' is no number of steps; allowed are 1, 2, \.\.\.$"):
        whole("steps", text, what="number of steps")
    assert whole("steps", "007") == 7 and whole("figures", "0", least=0) == 0


@pytest.mark.parametrize("words", [["fit"], ["parity"], ["bench", "level=step"], ["bench", "level=records"]])
def test_a_wrong_key_of_a_run_does_not_wait_for_torch(words: list[str]) -> None:
    code = (
        f"import sys; from pmexp.{words[0]}.command import main; code = main({[*words[1:], 'zork.bar=1']});"
        "assert 'torch' not in sys.modules; sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert "zork.bar is not a key" in done.stderr


def test_the_nearest_key_is_found_for_any_text() -> None:
    assert nearest("", ["a"]) == "" and nearest("--", ["a"]) == ""  # nothing is near
    assert nearest("train.learning_rate", ["train.lr", "model.lr"]) == "train.lr"
