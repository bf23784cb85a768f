"""Files of one's own for each objective of texts, a few rows each."""

import csv
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import parquet

WORDS = ("oil", "Rome", "rose", "Ann", "fell", "grain", "in", "and")
ROWS = 24


def rows(split: str) -> list[dict[str, Any]]:
    """Rows with a text, its class, its number, its words with their tags, and its translation."""
    made = []
    for row in range(ROWS if split == "train" else 8):
        words = [WORDS[(row * step + step) % len(WORDS)] for step in range(1, 4 + row % 5)]
        tags = ["B-LOC" if word == "Rome" else "B-PER" if word == "Ann" else "O" for word in words]
        text = " ".join(words)
        made.append(
            {
                "text": text, "label": ("no", "yes")[row % 2], "number": len(words) / 2 - 1.25, "words": words,
                "tags": tags, "turned": " ".join(reversed(words)),
            }
        )  # fmt: skip
    return made


def write(folder: Path, kind: str, splits: tuple[str, ...] = ("train", "validation", "test")) -> Path:
    """Writes a file of each split; in csv words and tags have blanks between them."""
    folder.mkdir(parents=True, exist_ok=True)
    for split in splits:
        file, of_split = folder / f"{split}.{kind}", rows(split)
        if kind == "parquet":
            parquet.write_table(pa.Table.from_pylist(of_split), file)
        elif kind == "csv":
            with file.open("w", newline="") as stream:
                table = csv.DictWriter(stream, list(of_split[0]))
                table.writeheader()
                for row in of_split:
                    table.writerow({k: " ".join(v) if isinstance(v, list) else v for k, v in row.items()})
        else:
            lines = of_split if kind == "jsonl" else [of_split]
            file.write_text("\n".join(json.dumps(line) for line in lines))
    return folder
