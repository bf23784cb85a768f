"""`python -m pmexp.bench.gpu`."""

import sys

from pmexp.bench.gpu.command import main

sys.exit(main())
