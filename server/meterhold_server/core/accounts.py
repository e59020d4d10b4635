"""Accounts: how they begin, and what they may do."""

from __future__ import annotations

from dataclasses import replace

from meterhold_server.core.allowances import set_allowance
from meterhold_server.core.deposits import Terms, deposit
from meterhold_server.core.model import (
    Account,
    AllowancePeriod,
    Defaults,
    DefaultsKey,
    EntryKind,
    LotCategory,
)
from meterhold_server.core.operations import AccountOperation, Configure, ConfigureDefaults
from meterhold_server.core.outcomes import Configured, DefaultsConfigured, Reason, Rejected
from meterhold_server.core.posting import Posting

SIGNUP_REASON = "signup"


def configure(posting: Posting, account: Account | None, operation: Configure) -> Configured:
    """Set what the operation names. A limit below what is used blocks new spending only."""
    account = account or new_account(posting, operation)
    if operation.credit_limit_micros is not None:
        account.credit_limit_micros = operation.credit_limit_micros
    if operation.holds_use_credit is not None:
        account.holds_use_credit = operation.holds_use_credit
    if operation.frozen is not None:
        account.frozen = operation.frozen
    if operation.allowance is not None:
        set_allowance(posting, account, operation.allowance)
    posting.touch(account)
    return Configured.of(account)


def new_account(posting: Posting, operation: AccountOperation) -> Account:
    """Create the account of an operation, with what the defaults give to new ones.

    The caller has checked that it does not exist. An allowance of its own is set in place of the
    default one.
    """
    account = posting.new_account(operation)
    key = DefaultsKey(operation.account.namespace, operation.account.unit)
    defaults = posting.state.defaults.get(key)
    if defaults is None:
        return account
    has_own = isinstance(operation, Configure) and operation.allowance is not None
    if defaults.allowance and not has_own:
        set_allowance(posting, account, defaults.allowance)
    if defaults.signup_micros:
        lifetime = defaults.signup_lifetime
        terms = Terms(
            category=LotCategory.PROMOTIONAL,
            expire_time=posting.now + lifetime if lifetime else None,
            reason=SIGNUP_REASON,
        )
        deposit(posting, account, EntryKind.GRANT, defaults.signup_micros, terms)
    return account


def configure_defaults(posting: Posting, operation: ConfigureDefaults) -> DefaultsConfigured:
    """Set what accounts get when they are created. Those that exist stay as they are."""
    defaults = posting.state.defaults.get(operation.key) or Defaults(operation.key)
    if operation.signup_micros is not None:
        defaults.signup_micros = operation.signup_micros
        defaults.signup_lifetime = operation.signup_lifetime if operation.signup_micros else None
    if operation.allowance is not None:
        is_off = operation.allowance.period is AllowancePeriod.OFF
        defaults.allowance = None if is_off else operation.allowance
    posting.state.defaults[operation.key] = defaults
    posting.touch_defaults(defaults)
    return DefaultsConfigured(replace(defaults))


def refuse_frozen(account: Account | None) -> Rejected | None:
    """The refusal of new work or credits for a frozen account."""
    if account is not None and account.frozen:
        return Rejected(Reason.ACCOUNT_FROZEN, {})
    return None
