"""Repairs of what was given back of each charge: what can still be refunded never grows by one."""

from __future__ import annotations

from meterhold_server.core.corrections import Corrections
from meterhold_server.core.model import ChargeRefund
from meterhold_server.core.summary import RefundSums


def repair_refunds(ledger: Corrections) -> None:
    """Make what is known and what entries say agree: the larger number, and at most the charge.

    A correction tells what the refunds do not.
    """
    for charge_seq in sorted(ledger.summary.refunded.keys() | ledger.doubted.keys()):
        _repair(ledger, charge_seq)


def _repair(ledger: Corrections, charge_seq: int) -> None:
    account = ledger.account
    known = account.charge_refunds.get(charge_seq)
    said = ledger.summary.refunded.get(charge_seq, RefundSums())
    charged = _charged_micros(ledger, charge_seq, said)
    micros = max(said.micros, known.refunded_micros if known else 0)
    if charged > 0:
        micros = min(charged, micros + ledger.doubted.get(charge_seq, 0))
    if micros > 0:
        kept = known or ChargeRefund(account.account_id, charge_seq)
        kept.refunded_micros = micros
        account.charge_refunds[charge_seq] = kept
    # Of what is no charge nothing can be given back again: there it is enough that it is told.
    untold = charged == 0 and said.micros > 0 and not said.explained
    if micros != said.micros or untold:
        ledger.count_as_refunded(charge_seq, micros - said.micros, micros)


def _charged_micros(ledger: Corrections, charge_seq: int, said: RefundSums) -> int:
    """The most that an entry charged, with the corrections of it and what stands in for it."""
    charged, corrected = said.charged_micros, said.corrected_micros
    for broken in ledger.summary.breaks:
        if broken.entry.seq == charge_seq:
            charged = -broken.entry.amount_micros
    for entry in ledger.entries:
        if entry.seq == charge_seq:
            charged = -entry.amount_micros
        if entry.related_seq == charge_seq:
            corrected -= entry.amount_micros
    return max(0, charged, charged + corrected)
