"""Stand-ins for the tests of programs that call Meterhold. docs/testing.md says which one when.

`Stub` answers what a test has scripted, `InMemory` decides by the server's own rules, and
`embedded_service` is the real thing. `meterhold.testing.fixtures` has them as pytest fixtures.
"""

from __future__ import annotations

from meterhold.testing._embedded import embedded_service
from meterhold.testing._in_memory import InMemory
from meterhold.testing._stub import Call, Stub

__all__ = ["Call", "InMemory", "Stub", "embedded_service"]
