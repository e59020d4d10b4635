"""AdminService: what accounts may do, which there are, their books, and who may call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from meterhold.v1 import admin_service_pb2 as pb
from meterhold.v1.admin_service_pb2_grpc import AdminServiceServicer
from meterhold_server.batching import failures
from meterhold_server.core.expiry import is_due
from meterhold_server.core.model import (
    EMPTY_BALANCE,
    AccountKey,
    Defaults,
    DefaultsKey,
    account_id_of,
)
from meterhold_server.core.operations import Expire, Rebuild
from meterhold_server.core.outcomes import Configured, DefaultsConfigured, Expired, Rebuilt
from meterhold_server.rpc import credentials, page_token, requests, responses, terms
from meterhold_server.rpc.requests import account_key
from meterhold_server.rpc.service import was_sent_before
from meterhold_server.rpc.validation import (
    ACCOUNT_CHARACTERS_MAX,
    Fields,
    InvalidRequest,
    Violation,
)
from meterhold_server.storage import pages
from meterhold_server.storage.credentials import (
    create_credential,
    page_of_credentials,
    revoke_credential,
)
from meterhold_server.storage.verify import DIFFERENCES_MAX, verify_account
from meterhold_server.storage.wrong_blocks import remove_wrong_blocks

if TYPE_CHECKING:
    from meterhold_server.rpc.service import Context, Service
    from meterhold_server.storage.pages import AccountRead

_REBUILT_ENTRIES_MAX: Final = 1_000_000
"""Of a longer ledger, a rebuild would keep a lane from its other accounts for too long."""


class AdminServicer(AdminServiceServicer):
    def __init__(self, service: Service) -> None:
        self._service = service

    async def ConfigureAccount(
        self, request: pb.ConfigureAccountRequest, context: Context
    ) -> pb.ConfigureAccountResponse:
        operation = requests.configure(request, self._service.caller)
        outcome = await self._service.submit(operation, context)
        assert isinstance(outcome, Configured)
        return pb.ConfigureAccountResponse(account=responses.configured(operation.account, outcome))

    async def GetAccount(
        self, request: pb.GetAccountRequest, context: Context
    ) -> pb.GetAccountResponse:
        fields = Fields()
        account = account_key(fields, request, self._service.caller)
        fields.done()
        await self._service.current_balance(account, context)
        read = await self._service.reader.run(pages.read_account, account_id_of(account))
        if read is None:
            return pb.GetAccountResponse(account=responses.no_account(account))
        await self._add_allowances([read])
        return pb.GetAccountResponse(account=responses.account(read.account))

    async def ListAccounts(
        self, request: pb.ListAccountsRequest, context: Context
    ) -> pb.ListAccountsResponse:
        fields = Fields()
        prefix = fields.text(
            "account_prefix", request.account_prefix, ACCOUNT_CHARACTERS_MAX, required=False
        )
        namespace = self._service.caller.namespace
        filters = ("accounts", namespace, prefix)
        size = page_token.page_size(fields, request.page_size)
        after = page_token.decode_account_and_unit(fields, request.page_token, filters)
        fields.done()
        found = await self._service.reader.run(
            pages.page_of_accounts, namespace, account_prefix=prefix, after=after, limit=size + 1
        )
        await self._add_allowances(found)
        last = found[size - 1].account.key if len(found) > size else None
        return pb.ListAccountsResponse(
            accounts=[await self._current(read, context) for read in found[:size]],
            next_page_token=page_token.encode(filters, last[1:]) if last else "",
        )

    async def ConfigureDefaults(
        self, request: pb.ConfigureDefaultsRequest, context: Context
    ) -> pb.ConfigureDefaultsResponse:
        operation = requests.configure_defaults(request, self._service.caller)
        outcome = await self._service.submit(operation, context)
        assert isinstance(outcome, DefaultsConfigured)
        return pb.ConfigureDefaultsResponse(defaults=terms.defaults_message(outcome.defaults))

    async def GetDefaults(
        self, request: pb.GetDefaultsRequest, context: Context
    ) -> pb.GetDefaultsResponse:
        fields = Fields()
        key = DefaultsKey(self._service.caller.namespace, requests.unit_of(fields, request))
        fields.done()
        found = await self._service.reader.run(pages.read_defaults, key)
        return pb.GetDefaultsResponse(defaults=terms.defaults_message(found or Defaults(key)))

    async def _add_allowances(self, accounts: Sequence[AccountRead]) -> None:
        """Fill in the allowances of accounts that were read."""
        ids = [read.account.account_id for read in accounts]
        allowances = await self._service.reader.run(pages.read_allowances, ids)
        for read in accounts:
            read.account.allowance = allowances.get(read.account.account_id)

    async def VerifyBalance(
        self, request: pb.VerifyBalanceRequest, context: Context
    ) -> pb.VerifyBalanceResponse:
        account = self._account(request)
        found = await self._service.verifier.run(verify_account, account_id_of(account))
        if found is None:
            return pb.VerifyBalanceResponse(balance=responses.balance(EMPTY_BALANCE))
        return pb.VerifyBalanceResponse(
            differences=map(responses.difference, found.differences),
            balance=responses.balance(found.account.balance()),
            entry_count=found.entries,
        )

    async def RebuildBalance(
        self, request: pb.RebuildBalanceRequest, context: Context
    ) -> pb.RebuildBalanceResponse:
        """What is sound never reaches a lane: there is nothing to set right."""
        account = self._account(request)
        before = await self._service.verifier.run(verify_account, account_id_of(account))
        if before is None or not before.differences:
            balance = before.account.balance() if before else EMPTY_BALANCE
            return pb.RebuildBalanceResponse(balance=responses.balance(balance))
        _refuse_large(before.entries)
        rebuild = Rebuild(account, actor=self._service.caller.credential_id)
        outcome = await self._service.submit(rebuild, context)
        assert isinstance(outcome, Rebuilt)
        await self._service.summarizer.run(remove_wrong_blocks, account_id_of(account))
        after = await self._service.verifier.run(verify_account, account_id_of(account))
        remaining = after.differences if after else []
        still = {difference.what for difference in remaining}
        repaired = [each for each in before.differences if each.what not in still]
        return pb.RebuildBalanceResponse(
            repaired=map(responses.difference, repaired),
            remaining=map(responses.difference, remaining),
            corrections=map(responses.entry, outcome.corrections[:DIFFERENCES_MAX]),
            balance=responses.balance(outcome.balance),
        )

    async def CreateApiKey(
        self, request: pb.CreateApiKeyRequest, context: Context
    ) -> pb.CreateApiKeyResponse:
        caller = self._service.caller
        wanted = credentials.wanted_key(request, caller)
        if was_sent_before(context):
            # An earlier attempt may have made a key, which cannot be shown again.
            raise failures.outcome_unknown()
        key = credentials.new_key()
        made = await self._service.credentials.run(
            create_credential,
            credential_id=key.credential_id,
            namespace=caller.namespace,
            secret_hash=key.secret_hash,
            actor=caller.credential_id,
            **wanted._asdict(),
        )
        return pb.CreateApiKeyResponse(
            credential=credentials.credential_message(made), api_key=key.text
        )

    async def ListCredentials(
        self, request: pb.ListCredentialsRequest, context: Context
    ) -> pb.ListCredentialsResponse:
        fields = Fields()
        namespace = self._service.caller.namespace
        filters = ("credentials", namespace)
        size = page_token.page_size(fields, request.page_size)
        after = page_token.decode_time_and_id(fields, request.page_token, filters)
        fields.done()
        found = await self._service.credentials.run(
            page_of_credentials, namespace, after=after, limit=size + 1
        )
        last = found[size - 1] if len(found) > size else None
        key = (last.create_time.isoformat(), last.credential_id) if last else ()
        return pb.ListCredentialsResponse(
            credentials=map(credentials.credential_message, found[:size]),
            next_page_token=page_token.encode(filters, key) if last else "",
        )

    async def RevokeCredential(
        self, request: pb.RevokeCredentialRequest, context: Context
    ) -> pb.RevokeCredentialResponse:
        caller = self._service.caller
        credential_id = credentials.named_credential(request)
        revoked = await self._service.credentials.run(
            revoke_credential, caller.namespace, credential_id, actor=caller.credential_id
        )
        return pb.RevokeCredentialResponse(
            credential=credentials.credential_message(revoked) if revoked else None
        )

    def _account(self, request: pb.VerifyBalanceRequest | pb.RebuildBalanceRequest) -> AccountKey:
        fields = Fields()
        account = account_key(fields, request, self._service.caller)
        fields.done()
        return account

    async def _current(self, read: AccountRead, context: Context) -> pb.Account:
        """An account of a page, once what is due in it has expired: rare, as the sweeper does."""
        message = responses.account(read.account)
        if is_due(read.account, read.now):
            outcome = await self._service.submit(Expire(read.account.key), context)
            assert isinstance(outcome, Expired)
            message.balance.CopyFrom(responses.balance(outcome.balance))
            allowances = await self._service.reader.run(
                pages.read_allowances, [read.account.account_id]
            )
            terms.set_allowance(message, allowances.get(read.account.account_id))
        return message


def _refuse_large(entries: int) -> None:
    if entries > _REBUILT_ENTRIES_MAX:
        description = (
            f"has {entries} entries, and a server rebuilds at most {_REBUILT_ENTRIES_MAX}: run"
            " `meterhold-server verify --repair --account` instead"
        )
        raise InvalidRequest([Violation("account", description)])
