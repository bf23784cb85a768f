"""`python -m pmexp`, where no `pmexp` is on the path."""

import sys

from pmexp.cli.main import main

sys.exit(main())
