"""`python -m meterhold.cli`."""

import sys

from meterhold.cli import main

sys.exit(main())
