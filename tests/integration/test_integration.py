"""`python -m pmexp.integration`: what is counted, and whether the committed page is what it says now."""

from dataclasses import replace
from pathlib import Path

import pytest

from pmexp import models
from pmexp.command.compose import compose
from pmexp.config import Attention, ModelKind, Part
from pmexp.config.kinds import KINDS
from pmexp.integration.cases import VARIANTS, cases, configuration, names
from pmexp.integration.command import main
from pmexp.integration.page import LINES, section, summary
from pmexp.integration.reach import reach
from pmexp.simulation.cuda_kernels import cuda_semantics
from pmexp.variants.replace import apply_variant
from small_kinds import of_kind

PAGE = (Path(__file__).parents[2] / "docs" / "integration.md").read_text()
BASELINE, PM_DROP, RECOMPUTE = (compose([f"variant={name}"]).variant for name in VARIANTS)


@pytest.mark.parametrize("name", ["vit-digits", "tinybert"])
def test_the_committed_page_is_what_the_command_writes(name: str) -> None:
    """Only two models are compared, because the whole page takes a minute."""
    assert f"\n{section(name)}\n" in PAGE
    for case in cases(name):
        assert f"\n{summary(name, case)}\n" in PAGE


def test_the_page_has_every_model() -> None:
    assert [line[3:] for line in PAGE.splitlines() if line.startswith("## ")] == names()
    assert {configuration(name).model.kind for name in names()} == set(KINDS)


def test_elements_are_those_counted_by_hand() -> None:
    """17 positions of 64 in vit-digits, 4 layers of 4 heads; each layer drops its width twice."""
    hidden, attention = 17 * 64 * (1 + 4 * 2), 4 * 4 * 17 * 17
    eager = configuration("vit-digits")
    reached = reach(eager, PM_DROP, 0)
    assert (reached.packed_elements, reached.elements) == (hidden + attention,) * 2
    assert reached.recomputed_elements == 0
    assert reach(eager, RECOMPUTE, 0).recomputed_elements == attention
    sdpa = replace(eager, model=replace(eager.model, attention=Attention.sdpa))
    reached = reach(sdpa, RECOMPUTE, 0)
    assert (reached.packed_elements, reached.recomputed_elements) == (hidden + attention, attention)
    assert len(reached.report.attention) == 4 and reached.attention_elements == 0
    assert reach(sdpa, BASELINE, 0).attention_elements == attention
    with cuda_semantics():
        fused = reach(sdpa, RECOMPUTE, 0)
    assert (fused.packed_elements, fused.attention_elements) == (hidden, attention)
    assert fused.elements == hidden + attention and fused.recomputed_elements == 0


def test_a_model_that_asks_for_values_is_counted_in_a_copy_of_two_layers() -> None:
    """32 tokens of 16 in 2 heads: a band of 9 keys and the global token, and what that one sees."""
    config = of_kind(ModelKind.longformer)
    hidden = 32 * 16 * (1 + 2 * 2) + 2 * 16  # the head drops twice
    band, whole = 2 * 2 * 32 * (9 + 1), 2 * 2 * 32
    reached = reach(config, RECOMPUTE, 32)
    assert (reached.packed_elements, reached.elements) == (hidden + band + whole,) * 2
    assert reached.recomputed_elements == whole + 16  # the head's second layer keeps its tanh
    assert len(reached.report.functions) == 1  # that of the model itself, which has one layer
    flash = replace(config, system=replace(config.system, parts=[Part.flash]))
    in_blocks = reach(flash, PM_DROP, 32)  # on the CPU, where torch takes its math kernel
    assert in_blocks.packed_elements == in_blocks.elements > hidden


def test_the_lines_of_a_user_do_what_the_variant_does(capsys: pytest.CaptureFixture[str]) -> None:
    config = of_kind(ModelKind.gpt2)
    exec("\n".join(LINES), {"model": models.untrained(config, 2)})
    report = apply_variant(models.untrained(config, 2), PM_DROP)
    assert capsys.readouterr().out == f"{report}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["model=tinybert"], "model=tinybert: model is not a key; allowed are out"),
        (
            ["out=page.html"],
            "out: page.html is no name for what is written; name a file with .md",
        ),
    ],
)
def test_a_wrong_key_is_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    assert capsys.readouterr().err == f"error: {message}\n"
