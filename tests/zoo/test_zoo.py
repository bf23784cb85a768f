"""A sample of the zoo, the faults that it is there to find, and the page that the whole of it makes."""

import dataclasses
from functools import cache, partial
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pmexp.packed_dropout import ReplacementReport
from pmexp.zoo import sweep
from pmexp.zoo.command import main
from pmexp.zoo.examine import Examined, examine, is_mask, step
from pmexp.zoo.page import page
from pmexp.zoo.specimen import Specimen
from pmexp.zoo.sweep import FAMILIES, ZooRow, row_of
from pmexp.zoo.tiny import RATE

PAGE = (Path(__file__).parents[2] / "docs" / "results" / "zoo.md").read_text()
SAMPLE = [
    *(("BertModel", "eager"), ("BertModel", "sdpa"), ("GPT2Model", "eager"), ("LlamaModel", "eager")),
    *(
        ("T5Model", "eager"),
        ("WhisperModel", "eager"),
        ("Speech2TextModel", "eager"),
        ("Wav2Vec2ForCTC", "eager"),
    ),
    *(("SwinModel", "eager"), ("VivitModel", "eager"), ("CLIPModel", "eager")),
    *(("TransformerDecoderLayer", ""), ("LSTM", ""), ("LoraConfig (convolutions)", ""), ("LoHaConfig", "")),
]
# Libraries warn of what they do themselves.
pytestmark = pytest.mark.filterwarnings("ignore")


@cache
def specimens() -> dict[tuple[str, str], Specimen]:
    return {(each.name, each.attention): each for family in FAMILIES for each in family()}


@pytest.mark.parametrize(("name", "attention"), SAMPLE)
def test_a_class_is_exact_and_nothing_in_it_goes_unsaid(name: str, attention: str) -> None:
    row = row_of(specimens()[name, attention])
    assert row and row.missing is None and row.faults == () and (row.modules or row.functions)
    assert row.packed < 1.0


def test_the_committed_page_has_no_faults_and_more_than_enough_classes() -> None:
    exact = {line.split(" | ")[0][2:] for line in PAGE.splitlines() if line.endswith(" | yes |")}
    of_transformers = [
        line for line in PAGE.splitlines() if " | transformers | " in line and line.endswith("yes |")
    ]
    assert {name for name, _ in SAMPLE} <= exact and "## Faults" not in PAGE
    assert len({line.split(" | ")[0] for line in of_transformers}) >= 120


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear, self.calls = nn.Linear(8, 8), 0

    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(self.linear(x), RATE)


def test_a_dropout_that_is_neither_reached_nor_named_is_a_fault() -> None:
    model, inputs = nn.Sequential(Block()), {"input": torch.ones(4, 8)}
    stock = step(model, inputs)
    model.zero_grad()
    silent = step(model, inputs, ReplacementReport("PackedDropout", "all", settled=True))
    faults = Examined(ReplacementReport("PackedDropout", "all"), stock, silent, silent).faults()
    assert "packed: 0 keeps a mask unpacked, and no word of it" in faults
    assert any(
        "a draw without a word of it: 0: aten.bernoulli_.float draws at zoo/test_zoo.py" in fault
        for fault in faults
    )
    named = ReplacementReport("PackedDropout", "all", left={"0": "on purpose"})
    model.zero_grad()
    assert Examined(named, stock, *[step(model, inputs, named)] * 2).faults() == []


class Differing(Block):
    """Has another rate wherever its dropout is replaced."""

    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(self.linear(x), RATE if type(self) is Differing else 2 * RATE)


class Failing(Block):
    def forward(self, x: Tensor) -> Tensor:
        raise RuntimeError("on\npurpose")


def made(block: Block) -> tuple[nn.Module, dict[str, Tensor]]:
    return nn.Sequential(block).train(), {"input": torch.ones(4, 8)}


def test_other_numbers_and_more_bytes_are_faults() -> None:
    examined = examine(*made(Differing()))
    assert [fault[:20] for fault in examined.faults()][:2] == ["packed: loss differs", "packed: 0.linear.wei"]
    swollen = dataclasses.replace(examined.stock, saved_bytes=examined.stock.saved_bytes + 1)
    faults = Examined(examined.report, examined.stock, swollen, examined.rebuilt).faults()
    assert any(fault.startswith("packed saves ") for fault in faults)


@pytest.mark.parametrize("rate", [RATE, 0.5])
def test_a_mask_is_told_by_its_values(rate: float) -> None:
    noise = torch.empty(64).bernoulli_(1 - rate).div_(1 - rate)
    assert is_mask(noise) == (rate == RATE)
    assert not is_mask(torch.ones(64)) and not is_mask(noise * 2) and not is_mask(noise.bool())


def test_what_cannot_be_had_is_a_row_with_its_reason() -> None:
    rows = [
        row_of(Specimen("Failing", "tests", "", partial(made, Failing()))),
        row_of(Specimen("Block", "tests", "eager", partial(made, Block()))),
        row_of(Specimen("Block", "tests", "sdpa", partial(made, Block()))),
        row_of(Specimen("Linear", "tests", "", lambda: (nn.Linear(8, 8), {"input": torch.ones(4, 8)}))),
    ]
    text = page("python -m pmexp.zoo", [row for row in rows if row])
    assert "| tests | 3 | 1 | 0 | 1 | 1 |" in text
    assert "- Failing: RuntimeError: on purpose" in text and "\nLinear.\n" in text
    assert "| Block | tests | eager, sdpa | 0 | 1 | 0 |" in text


def test_the_command_examines_what_it_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["only=Dropout,Nothing"]) == 2
    assert "only=Nothing: no such class" in capsys.readouterr().err
    assert main(["only=Dropout"]) == 0
    assert "| Dropout | torch |" in capsys.readouterr().out


def test_a_fault_is_told_by_the_exit_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sweep, "swept", lambda _: [ZooRow("Dropout", "torch", "", faults=("wrong",))])
    assert main(["only=Dropout"]) == 1
    assert "Dropout" in capsys.readouterr().err
