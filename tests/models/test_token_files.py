"""Tokens of running text: made once, mapped by all runs, the same ids as the tokenizer's, never an old file's."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pmexp.datasets.base import Split
from pmexp.errors import UserError
from pmexp.models import token_files
from pmexp.models.text import train_tokenizer
from pmexp.models.token_files import token_ids

TEXTS = ["a small line", "", "of words, and of \u00e9 and \u6f22", "small words"] * 3


@pytest.fixture
def tokenizer() -> Any:
    return train_tokenizer(Split([(text,) for text in TEXTS], np.zeros(0, dtype=np.int64)), 80)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PMEXP_CACHE", str(tmp_path))
    monkeypatch.setattr(token_files, "_TEXTS_AT_ONCE", 5)
    return tmp_path / "tokens"


def files(cache: Path) -> set[str]:
    return {file.name for file in cache.glob("*.ids")}


def expected(tokenizer: Any, texts: list[str]) -> list[int]:
    return [token for text in texts for token in tokenizer(text, add_special_tokens=False)["input_ids"]]


def test_ids_are_those_of_one_text_after_another(tokenizer: Any) -> None:
    ids = token_ids(tokenizer, lambda: TEXTS)
    assert ids.dtype == np.int32 and ids.tolist() == expected(tokenizer, TEXTS)
    assert token_ids(tokenizer, lambda: [""]).tolist() == []


def test_the_second_run_maps_the_file_of_the_first(
    tokenizer: Any, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = token_ids(tokenizer, lambda: TEXTS)
    tokenizer(TEXTS[0], padding="max_length", truncation=True, max_length=7)  # leaves its state behind
    monkeypatch.setattr(token_files, "_batches", None)
    second = token_ids(tokenizer, lambda: TEXTS)
    assert isinstance(second.base, np.memmap) and second.tolist() == first.tolist() and len(files(cache)) == 1


def test_other_texts_and_other_tokenizers_have_files_of_their_own(tokenizer: Any, cache: Path) -> None:
    token_ids(tokenizer, lambda: TEXTS)
    for texts in (TEXTS[:-1], [TEXTS[0] + TEXTS[1], *TEXTS[2:]], ["".join(TEXTS)]):
        assert token_ids(tokenizer, lambda texts=texts: texts).tolist() == expected(tokenizer, texts)  # type: ignore[misc]
    assert len(files(cache)) == 4
    tokenizer.add_tokens(["small"])
    assert token_ids(tokenizer, lambda: TEXTS).tolist() == expected(tokenizer, TEXTS)
    assert len(files(cache)) == 5


def test_runs_that_begin_at_once_make_one_file(tokenizer: Any, cache: Path) -> None:
    with ThreadPoolExecutor(3) as pool:
        results = [pool.submit(token_ids, tokenizer, lambda: TEXTS) for _ in range(3)]
    assert [result.result().tolist() for result in results] == [expected(tokenizer, TEXTS)] * 3
    assert len(files(cache)) == 1 and not list(cache.glob("*.partial"))


@pytest.mark.parametrize("damage", ["cut", "longer", "changed", "gone", "about"])
def test_a_damaged_file_is_named_and_not_read(tokenizer: Any, cache: Path, damage: str) -> None:
    token_ids(tokenizer, lambda: TEXTS)
    [file] = cache.glob("*.ids")
    content, about = file.read_bytes(), file.with_suffix(".json")
    file.unlink()
    if damage == "about":
        about.write_text("[]")
    if damage != "gone":
        changed = {"cut": content[:-4], "longer": content * 2, "changed": b"\7" + content[1:]}
        file.write_bytes(changed.get(damage, content))
    with pytest.raises(UserError, match=f"^{about}: .* damaged; remove this file"):
        token_ids(tokenizer, lambda: TEXTS)
    about.unlink()
    assert token_ids(tokenizer, lambda: TEXTS).tolist() == expected(tokenizer, TEXTS)


def test_what_a_killed_run_left_is_made_anew(tokenizer: Any, cache: Path) -> None:
    token_ids(tokenizer, lambda: TEXTS)
    [file] = cache.glob("*.ids")
    file.with_suffix(".json").unlink()
    file.write_bytes(b"half")
    file.with_suffix(".partial").write_bytes(b"of it")
    assert token_ids(tokenizer, lambda: TEXTS).tolist() == expected(tokenizer, TEXTS)
