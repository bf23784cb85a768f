"""Tokenises running text once a machine: the ids lie in a file that all runs map into memory and share.

A file is named after the digest of the texts, of the tokenizer and of its library's version, so nothing that
changes the ids finds an old file. `<digest>.ids` holds int32 ids. `<digest>.json` holds their number and
SHA-256 and is written last. One process makes a file while others that need it wait.
"""

import hashlib
import json
import logging
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
import transformers
from filelock import FileLock
from numpy.typing import NDArray

from pmexp.datasets.base import cache_folder
from pmexp.errors import UserError
from pmexp.run_folder.files import opened, parsed_json, write_atomically

log = logging.getLogger(__name__)

_IDS = np.dtype("<i4")
_TEXTS_AT_ONCE = 4096  # bounds the memory of a tokenizer's call


def token_ids(tokenizer: Any, texts: Callable[[], Iterable[str]]) -> NDArray[np.int32]:
    """(tokens,) int32: the ids of all texts in a row, without special tokens, mapped from a file.

    texts: gives the same texts at each call. A tokenizer in Python, whose state has no digest, makes the ids
    anew in each run. Raises UserError where a file is damaged.
    """
    if not tokenizer.is_fast:
        log.info("the ids of %s are made in each run: it is no fast tokenizer", type(tokenizer).__name__)
        return np.concatenate([np.zeros(0, _IDS), *_batches(tokenizer, texts())])
    file = cache_folder() / "tokens" / f"{_digest(tokenizer, texts())}.ids"
    file.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(file.with_suffix(".lock")):
        if not file.with_suffix(".json").is_file():
            _write(file, _batches(tokenizer, texts()))
    return _mapped(file)


def _batches(tokenizer: Any, texts: Iterable[str]) -> Iterator[NDArray[np.int32]]:
    encode = partial(tokenizer, add_special_tokens=False, return_attention_mask=False)
    remaining = iter(texts)
    while some := list(islice(remaining, _TEXTS_AT_ONCE)):
        yield np.concatenate([np.asarray(ids, _IDS) for ids in encode(some)["input_ids"]])


def _digest(tokenizer: Any, texts: Iterable[str]) -> str:
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    state |= {"truncation": None, "padding": None}  # how a call before this one left them
    about = [state, tokenizers.__version__, transformers.__version__, type(tokenizer).__name__]
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for text in texts:
        encoded = text.encode("utf-8", "surrogatepass")
        digest.update(b"%d:" % len(encoded))
        digest.update(encoded)
    return digest.hexdigest()


def _write(file: Path, batches: Iterable[NDArray[np.int32]]) -> None:
    count, digest = 0, hashlib.sha256()
    scratch = file.with_suffix(".partial")
    with scratch.open("wb") as stream:
        for ids in batches:
            stream.write(ids.data)
            digest.update(ids.data)
            count += len(ids)
    scratch.replace(file)  # a run that has the old file mapped keeps it
    write_atomically(file.with_suffix(".json"), json.dumps({"ids": count, "sha256": digest.hexdigest()}))


def _mapped(file: Path) -> NDArray[np.int32]:
    about = file.with_suffix(".json")
    try:
        expected: Any = parsed_json(about.read_bytes())
        with opened(file) as stream:
            intact = hashlib.file_digest(stream, "sha256").hexdigest() == expected["sha256"]
        ids = np.memmap(file, _IDS, "r") if expected["ids"] else np.zeros(0, _IDS)
        intact = intact and len(ids) == expected["ids"]
    except (OSError, ValueError, TypeError, LookupError):
        intact = False
    if not intact:
        raise UserError(f"{about}: these cached tokens are damaged; remove this file to have them made again")
    return np.asarray(ids)
