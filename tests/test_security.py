"""Nothing from outside is executed, and nothing is written outside of a run's folder."""

import ast
import hashlib
import json
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from transformers import AutoModelForSequenceClassification, BertConfig

from composed import DEFAULT, config
from pmexp.config import CheckpointConfig
from pmexp.errors import UserError
from pmexp.models.checkpoint import load_pretrained, load_tokenizer
from pmexp.run_folder.folder import RunFolder
from pmexp.runs.command import main as list_runs
from pmexp.systems.ranks import Ranks
from pmexp.tracking import ui
from pmexp.training import best_weights
from pmexp.training.checkpoint import Checkpoints
from pmexp.training.loop import Training
from pmexp_analysis.report import main as report
from small_runs import TINY_BERT, TINY_VIT, Runs

ROOT = Path(__file__).parents[1]
SOURCES = [file for root in ("src", "launchers", "analysis") for file in sorted((ROOT / root).rglob("*.py"))]
BERT = config(*TINY_BERT)


class Bomb:
    """Unpickling it makes a folder."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        import os

        return os.mkdir, (str(self.mark),)


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    return tmp_path / "executed"


def danger(node: ast.AST) -> str:
    """What of a source would execute content of a file; empty for harmless code."""
    if isinstance(node, ast.Import | ast.ImportFrom):
        names = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
        unsafe = {"pickle", "cloudpickle", "dill", "marshal", "shelve", "joblib"}
        return " ".join(unsafe & {name.split(".")[0] for name in names})
    if not isinstance(node, ast.Call):
        return ""
    called, given = ast.unparse(node.func), {word.arg: ast.unparse(word.value) for word in node.keywords}
    if called == "torch.load" and given.get("weights_only") != "True":
        return "torch.load without weights_only=True"
    if (
        called.startswith("yaml.")
        and "load" in called
        and called != "yaml.safe_load"
        and given.get("Loader") != "_YAML"
    ):
        return called
    if called in ("eval", "exec", "os.system", "pd.read_pickle", "pandas.read_pickle", "torch.hub.load"):
        return called
    for word in ("allow_pickle", "trust_remote_code", "shell"):
        if given.get(word, "False") != "False":
            return f"{word}={given[word]}"
    return ""


def test_no_source_executes_what_it_loads() -> None:
    assert len(SOURCES) > 150
    calls = [
        f"{file.relative_to(ROOT)}:{node.lineno}: {danger(node)}"
        for file in SOURCES
        for node in ast.walk(ast.parse(file.read_text()))
        if danger(node)
    ]
    assert calls == []


@pytest.mark.parametrize(
    "code",
    [
        "torch.load(f)", "torch.load(f, weights_only=False)", "import pickle", "from pickle import loads",
        "np.load(f, allow_pickle=True)", "a.from_pretrained(f, trust_remote_code=x)", "yaml.load(f, Loader=yaml.Loader)",
        "yaml.unsafe_load(f)", "subprocess.run(x, shell=True)", "eval(x)",
    ],
)  # fmt: skip
def test_the_walk_above_finds(code: str) -> None:
    assert any(danger(node) for node in ast.walk(ast.parse(code)))


@pytest.mark.parametrize("value", ["../x", "a/b", "/tmp/x", "..", "", "a\\b", "a b", "x<b>", "x\n"])
def test_a_name_is_no_path(value: str) -> None:
    for part in (DEFAULT, DEFAULT.variant, DEFAULT.model, DEFAULT.dataset):
        with pytest.raises(UserError, match=r"^(variant\.|model\.|dataset\.)?name: .* is not a name"):
            replace(part, name=value)
    assert replace(DEFAULT.system, name=value).name == "plain"


def test_the_folder_of_a_run_lies_in_its_runs_dir() -> None:
    assert DEFAULT.folder.parents[1] == Path(DEFAULT.runs_dir) and DEFAULT.folder.parent.name == DEFAULT.name


@pytest.mark.parametrize(
    "link", ["default", "default/run", "default/run/checkpoints", "default/run/journal.jsonl"]
)
def test_a_run_does_not_follow_links_out_of_its_folder(link: str, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "default" / "run")
    folder.checkpoints.mkdir(parents=True)
    folder.journal.touch()
    with folder.claimed():
        pass
    (tmp_path / link).rename(tmp_path / "elsewhere")
    (tmp_path / link).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match=f"^{tmp_path / link} is a symbolic link to"), folder.claimed():
        pass


@pytest.mark.parametrize("write", [torch.save, lambda bomb, file: file.write_bytes(pickle.dumps(bomb))])
def test_a_pickle_among_the_checkpoints_is_left_out(
    write: Callable[[Any, Path], Any], tmp_path: Path, mark: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = RunFolder(tmp_path / "run")
    state = folder.checkpoints / "resume" / "step-00000001.pt"
    state.parent.mkdir(parents=True)
    folder.journal.touch()
    write({"training": Bomb(mark), "peak_bytes": 0}, state)
    data = state.read_bytes()
    manifest = {
        "step": 1, "best_step": 0, "bytes": len(data), "journal_bytes": 0,
        "blake2b": hashlib.blake2b(data, digest_size=16).hexdigest(),
    }  # fmt: skip
    state.with_suffix(".json").write_text(json.dumps(manifest))
    checkpoints = Checkpoints(folder, CheckpointConfig(), Ranks(), torch.device("cpu"))
    assert checkpoints.load() is None
    assert caplog.messages[0].startswith(f"checkpoint {state} is left out: ")
    assert not mark.exists()
    pickle.loads(data if write is not torch.save else pickle.dumps(Bomb(mark)))
    assert mark.exists(), "the bomb is none"


def test_best_weights_that_are_none_are_one_line(tmp_path: Path, mark: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.checkpoints.mkdir()
    engine = cast(Any, SimpleNamespace(ranks=Ranks()))
    file = folder.checkpoints / "best-00000001.safetensors"
    for content in (pickle.dumps(Bomb(mark)), b"", b"\xff" * 100, b"\x10\0\0\0\0\0\0\0" + b"[" * 16):
        file.write_bytes(content)
        with pytest.raises(UserError, match=f"^{file}: the weights of the best evaluation cannot be read"):
            best_weights.load(folder, engine, step=1)
    assert not mark.exists()


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """A folder for model.path with a configuration and no weights yet."""
    folder = tmp_path / "foreign"
    BertConfig(vocab_size=80, hidden_size=16, num_hidden_layers=1, num_attention_heads=2).save_pretrained(
        folder
    )
    return folder


def test_a_pretrained_model_that_is_a_pickle_is_not_executed(foreign: Path, mark: Path) -> None:
    for name in ("pytorch_model.bin", "model.safetensors"):
        torch.save({"bert.pooler.dense.bias": Bomb(mark)}, foreign / name)
        with pytest.raises(UserError, match=f"^model.path: the weights in {foreign} cannot be loaded"):
            load_pretrained(AutoModelForSequenceClassification, foreign, BERT, ["yes", "no"])
        assert not mark.exists()


def test_code_that_lies_beside_a_pretrained_model_is_not_run(
    foreign: Path, mark: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr("builtins.input", lambda text="": asked.append(text) or "y")
    (foreign / "evil.py").write_text(f"import os; os.mkdir({str(mark)!r})\nclass Evil: ...\n")
    values = json.loads((foreign / "config.json").read_text())
    code = {"AutoConfig": "evil.Evil", "AutoModelForSequenceClassification": "evil.Evil"}
    (foreign / "config.json").write_text(json.dumps({**values, "auto_map": code}))
    hostile = {"auto_map": {"AutoTokenizer": ["evil.Evil", None]}}
    (foreign / "tokenizer_config.json").write_text(json.dumps(hostile))
    (foreign / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "oil"]))
    assert load_tokenizer(foreign, BERT).tokenize("oil") == ["oil"]
    with pytest.raises(UserError, match=f"^model.path: the weights in {foreign} cannot be loaded"):
        load_pretrained(AutoModelForSequenceClassification, foreign, BERT, ["yes", "no"])
    (foreign / "config.json").write_text(json.dumps({**values, "model_type": "evil", "auto_map": code}))
    with pytest.raises(UserError, match="holds a model of type evil"):
        load_tokenizer(foreign, BERT)
    assert not mark.exists() and asked == []


@pytest.mark.parametrize("content", ["{nonsense", "[]", "", "\x00", "[" * 100_000, '{"metrics": 1}'])
@pytest.mark.parametrize("file", ["summary.json", "failure.json", "owner.json"])
def test_a_damaged_file_of_a_run_is_named(file: str, content: str, tmp_path: Path) -> None:
    (tmp_path / file).write_text(content)
    folder = RunFolder(tmp_path)
    read = {"summary.json": folder.out_of_memory, "failure.json": folder.failed, "owner.json": folder.owner}
    with pytest.raises(UserError, match=f"^{tmp_path / file} is damaged"):
        read[file]()


def test_mlflow_listens_to_this_machine_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def popen(command: list[str], **_: Any) -> None:
        raise ZeroDivisionError(command[command.index("--host") + 1])

    (host,) = [key.default for key in ui.COMMAND.keys if key.name == "host"]
    monkeypatch.setattr(ui.subprocess, "Popen", popen)
    started = ui._server("sqlite:///mlflow.db", host, 5000, f"{host}:5000")
    with pytest.raises(ZeroDivisionError, match=r"^127\.0\.0\.1$"), started:
        pass


def test_no_credential_of_a_failed_run_is_on_record(
    runs: Runs,
    database: Callable[[Path], Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Folder, log, MLflow, list and report: of a run that ends with an error that repeats what it was given."""
    monkeypatch.setenv("HF_TOKEN", "planted-by-the-environment")

    def step(training: Training, index: int) -> dict[str, float]:
        raise OSError(
            "planted-by-the-environment; GET https://me:planted2@host/?token=planted3 {'password': planted4}"
        )

    monkeypatch.setattr(Training, "_step", step)
    database(runs.folder)
    with pytest.raises(OSError, match="planted4"):
        runs.train(*TINY_VIT)
    capsys.readouterr()
    assert list_runs(["default", "--runs-dir", str(runs.folder), "--json"]) == 0
    said = capsys.readouterr().out
    assert "https://me:***@host/?token=***" in said and "planted" not in said
    assert report(["default", "--runs-dir", str(runs.folder), "--out", str(runs.folder)]) == 2
    assert "planted" not in capsys.readouterr().err
    (folder,) = runs.run_folders()
    assert "https://me:***@host" in (folder / "log.txt").read_text()
    files = [file for file in runs.folder.rglob("*") if file.is_file() and file.name != "source.diff"]
    assert [file for file in files if b"planted" in file.read_bytes()] == [] and len(files) > 8
