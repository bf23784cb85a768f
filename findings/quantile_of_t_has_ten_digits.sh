#!/usr/bin/env bash
# scipy 1.15.0: scipy.special.stdtrit, and scipy.stats.t.ppf by it, are right to 10 or 11 digits only, for small degrees
# of freedom and the probabilities of everyday intervals. Their inverses, stdtr and t.cdf, have all 16, and so has the
# quantile of 1.17.1. For 1, 2 and 4 degrees of freedom the quantile has a closed form, with which it is compared here.
# Output seen: 1.15.0: relative errors: 2.0e-11 1.2e-11 1.4e-11
#              1.17.1: relative errors: 1.1e-16 2.2e-16 0.0e+00
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
for version in 1.15.0 1.17.1; do
    python3 -m venv "$folder/$version"
    "$folder/$version/bin/pip" install --quiet "scipy==$version" numpy==2.2.6
    "$folder/$version/bin/python" - <<'PYTHON'
from math import acos, cos, pi, sqrt, tan

import scipy
from scipy.special import stdtrit


def closed(freedom, p):
    a = 4 * p * (1 - p)
    if freedom == 1:
        return tan(pi * (p - 0.5))
    if freedom == 2:
        return 2 * (p - 0.5) * sqrt(2 / a)
    return 2 * sqrt(cos(acos(sqrt(a)) / 3) / sqrt(a) - 1)


errors = [abs(stdtrit(freedom, p) / closed(freedom, p) - 1) for freedom, p in ((1, 0.975), (2, 0.975), (4, 0.995))]
print(f"{scipy.__version__}: relative errors:", *(f"{error:.1e}" for error in errors))
if scipy.__version__ == "1.15.0":
    assert all(1e-12 < error < 1e-10 for error in errors)
else:
    assert all(error < 1e-14 for error in errors)
PYTHON
done
