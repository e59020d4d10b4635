"""`python -m proving.tenancy`: no namespace learns or changes anything of another's, no stranger
comes in, and no secret is told. The tests that say so, with a floor to their number.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path
from typing import Final

import pytest

from support.verdict import Figures, tell

CASES_MIN: Final = 300
"""Of another's ids in requests, made of the descriptors."""

_TESTS: Final = Path(__file__).parents[1] / "access"
_TENANCY: Final = "test_tenancy.py"
_FILES: Final = (_TENANCY, "test_row_security.py", "test_scopes.py", "test_no_secrets.py")


class _Counted:
    """Counts tests by file, as a plugin of pytest."""

    def __init__(self) -> None:
        self.passed: Counter[str] = Counter()
        self.failed: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.failed.append(f"failed: {report.nodeid}")
        elif report.passed and report.when == "call":
            self.passed[Path(report.location[0]).name] += 1


def main() -> int:
    options = _options()
    counted = _Counted()
    files = [str(_TESTS / name) for name in _FILES]
    code = pytest.main(["-q", f"--randomly-seed={options.seed}", *files], [counted])
    for name in _FILES:
        print(f"{name:<40}{counted.passed[name]:>12,} cases")
    problems = list(counted.failed)
    if code != pytest.ExitCode.OK and not problems:
        problems.append(f"pytest ended with {code!r}")
    if counted.passed[_TENANCY] < CASES_MIN:
        problems.append(f"only {counted.passed[_TENANCY]} cases of another's ids")
    return tell(Figures(operations=counted.passed.total()), problems)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="proving.tenancy", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="of the order of the tests (1)")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
