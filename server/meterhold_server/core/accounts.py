"""Configure: what an account may do."""

from __future__ import annotations

from meterhold_server.core.model import Account
from meterhold_server.core.operations import Configure
from meterhold_server.core.outcomes import Configured, Reason, Rejected
from meterhold_server.core.posting import Posting


def configure(posting: Posting, account: Account | None, operation: Configure) -> Configured:
    """Set what the operation names. A limit below what is used blocks new spending only."""
    account = account or posting.new_account(operation)
    if operation.credit_limit_micros is not None:
        account.credit_limit_micros = operation.credit_limit_micros
    if operation.holds_use_credit is not None:
        account.holds_use_credit = operation.holds_use_credit
    if operation.frozen is not None:
        account.frozen = operation.frozen
    posting.touch(account)
    return Configured.of(account)


def refuse_frozen(account: Account | None) -> Rejected | None:
    """The refusal of new work or credits for a frozen account."""
    if account is not None and account.frozen:
        return Rejected(Reason.ACCOUNT_FROZEN, {})
    return None
