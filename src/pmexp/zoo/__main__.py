"""`python -m pmexp.zoo`."""

import sys

from pmexp.zoo.command import main

sys.exit(main())
