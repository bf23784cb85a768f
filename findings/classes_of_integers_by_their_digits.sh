#!/usr/bin/env bash
# datasets 5.2.0: class_encode_column of a column of integers gives labels other codes as soon as there are more than
# ten. It makes texts of the integers and sorts these, so that 10 comes before 2. Labels 0 to 11, codes already, become a
# permutation, without a word: a head that was trained on the codes of before, or a table of class names beside the
# data, then means other classes. Up to ten labels nothing happens, nor with cast_column and a ClassLabel of one's own.
# Output seen:
# 10 labels: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
# 12 labels: [0, 1, 4, 5, 6, 7, 8, 9, 10, 11, 2, 3]
# 12 labels, cast: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet datasets==5.2.0
cat >"$folder/encode.py" <<'PYTHON'
import datasets

datasets.disable_progress_bars()


def labels(count):
    return datasets.Dataset.from_dict({"label": list(range(count))})


ten = labels(10).class_encode_column("label")["label"][:]
twelve = labels(12).class_encode_column("label")["label"][:]
cast = labels(12).cast_column("label", datasets.ClassLabel(num_classes=12))["label"][:]
print(f"10 labels: {ten}\n12 labels: {twelve}\n12 labels, cast: {cast}")
assert ten == list(range(10)) and cast == list(range(12))
assert twelve == [0, 1, 4, 5, 6, 7, 8, 9, 10, 11, 2, 3]
PYTHON
HF_HOME="$folder/hf" "$folder/venv/bin/python" -W ignore "$folder/encode.py" 2>"$folder/err" || { cat "$folder/err" >&2; exit 1; }
