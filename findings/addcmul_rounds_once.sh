#!/usr/bin/env bash
# torch 2.13.0, CPU with FMA: addcmul(a, b, c) is a fused multiply-add, so it is often not equal to a + b * c.
# In float32, 23 % of 65,536 normal random elements differ; all of addcmul's results are float64's, rounded once, those
# of a + b * c are rounded after the product and after the sum. Seen on an Intel Xeon, with ATEN_CPU_CAPABILITY avx2 and
# avx512 (its default); with ATEN_CPU_CAPABILITY=default (no FMA) addcmul equals a + b * c in every element. The same
# call thus differs between machines, and replacing one form by the other changes bits.
# Output seen:
# capability=AVX2 addcmul_is_not_a_plus_bc=15335 addcmul_is_not_rounded_once=0
# capability=DEFAULT addcmul_is_not_a_plus_bc=0 addcmul_is_not_rounded_once=15335
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy
cat >"$folder/compare.py" <<'PYTHON'
import torch

generator = torch.Generator().manual_seed(0)
a, b, c = (torch.randn(65536, generator=generator) for _ in range(3))
found = torch.addcmul(a, b, c)
twice = (found != a + b * c).sum().item()
once = (found != (a.double() + b.double() * c.double()).float()).sum().item()
capability = torch.backends.cpu.get_cpu_capability()
print(f"capability={capability} addcmul_is_not_a_plus_bc={twice} addcmul_is_not_rounded_once={once}")
if capability == "DEFAULT":
    assert twice == 0 and once > 0.05 * len(a)
else:
    assert capability == "AVX2", "this needs an x86 CPU with AVX2 and FMA"
    assert twice > 0.05 * len(a) and once == 0
PYTHON
ATEN_CPU_CAPABILITY=avx2 "$folder/venv/bin/python" -W ignore "$folder/compare.py"
ATEN_CPU_CAPABILITY=default "$folder/venv/bin/python" -W ignore "$folder/compare.py"
