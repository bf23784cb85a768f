"""Reads back the file that W&B keeps of a run, so that what it has is known and not believed.

It is a log of protobuf records in blocks, as LevelDB writes them, behind a head of seven bytes.
"""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from struct import Struct
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wandb.proto.wandb_internal_pb2 import Record as Told

_HEAD, _BLOCK = 7, 32768  # bytes
_PART = Struct("<IHB")  # checksum, length, kind of a part
_WHOLE, _LAST = 1, 4  # kinds that end a record
_NO_MORE = 0  # kind of the zeros that a file may end with
Row = dict[str, float | None]


@dataclass
class WandbContent:
    """Holds what W&B has of a run."""

    name: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)  # without W&B's own keys; None: not a number
    summary: dict[str, Any] = field(default_factory=dict)  # what was set beside the rows
    exit_code: int | None = None  # None: it has not ended


def read_wandb(file: Path, final: str) -> WandbContent:
    """Reads the file of one run; of its summary the values whose names begin with `final`. A file that is
    damaged or was cut gives what is left of it."""
    content = WandbContent()
    for told in _records(file.read_bytes()):
        match told.WhichOneof("record_type"):
            case "run":
                content.name = told.run.display_name
                content.config |= _values(told.run.config.update)
            case "config":
                content.config |= _values(told.config.update)
            case "history":
                row = _values(told.history.item)
                content.rows.append({name: row[name] for name in row if not name.startswith("_")})
            case "summary":
                summary = _values(told.summary.update)
                content.summary |= {name: summary[name] for name in summary if name.startswith(final)}
            case "exit":
                content.exit_code = told.exit.exit_code
    content.config.pop("_wandb", None)
    return content


def _records(data: bytes) -> Iterator["Told"]:
    from google.protobuf.message import DecodeError
    from wandb.proto.wandb_internal_pb2 import Record as Told

    at, parts = _HEAD, b""
    while at + _PART.size <= len(data):
        if _BLOCK - at % _BLOCK < _PART.size:  # no part begins in so little
            at += _BLOCK - at % _BLOCK
            continue
        _, length, kind = _PART.unpack_from(data, at)
        if kind == _NO_MORE:
            return
        at += _PART.size + length
        if at > len(data):
            return
        parts += data[at - length : at]
        if kind in (_WHOLE, _LAST):
            try:
                yield Told.FromString(parts)
            except DecodeError:
                return
            parts = b""


def _values(items: Any) -> dict[str, Any]:
    return {
        item.key or ".".join(item.nested_key): _without_nan(json.loads(item.value_json)) for item in items
    }


def _without_nan(value: Any) -> Any:
    """None for what is no number, which is not equal to itself."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
