"""The Meterhold server: metering with holds over gRPC, on PostgreSQL."""

import os

# This process starts others but never forks to go on itself, and gRPC's preparations for that would
# only write a line on standard error each time. gRPC reads this when it is first imported.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "false")
