"""`python -m meterhold_server`."""

import sys

from meterhold_server.cli import main

sys.exit(main())
