"""The callback that makes a LiteLLM gateway sell tokens for prepaid credits.

The comments name the functions of LiteLLM 1.106 that call the hooks.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Mapping
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Any

import litellm
from litellm.integrations.custom_logger import CustomLogger
from litellm.litellm_core_utils.core_helpers import get_or_create_metadata_bucket
from litellm.proxy._types import UserAPIKeyAuth

import meterhold

from . import refusals, tokens

_log = logging.getLogger(__name__)

_METERED = frozenset({"acompletion", "completion"})

# Where the id of the reservation travels with a request, from hook to hook.
_KEY = "meterhold_reservation_id"

# So long after its expiry a hold can be settled. What is older is nobody's any more.
_FORGET_AFTER_SECONDS = timedelta(hours=24).total_seconds()

_now_seconds = time.monotonic


def account_of(key: UserAPIKeyAuth) -> str:
    """Who pays by default: the user of the gateway's key, otherwise its team. May be empty."""
    return key.user_id or key.team_id or ""


class _Call:
    """A request between its hooks."""

    def __init__(
        self,
        model: str,
        worst_case: litellm.Usage,
        hold: meterhold.AsyncHold,
        leaving: AsyncExitStack,
    ) -> None:
        self.model = model
        self.worst_case = worst_case
        self.hold = hold
        self.leaving = leaving
        self.begin_seconds = _now_seconds()
        self.started = False
        self.usage: litellm.Usage | None = None


class MeterholdCallback(CustomLogger):
    """Reserves before each chat completion what it may cost at worst, and settles what it did cost.

    A subclass would have to define the hooks again: LiteLLM looks for them in the class of the
    callback itself (`ProxyLogging.pre_call_hook`).
    """

    def __init__(
        self,
        *,
        account: Callable[[UserAPIKeyAuth], str] = account_of,
        price: Callable[[str, litellm.Usage], int] = tokens.price_micros,
        max_output_tokens: int = 4096,
        ttl: timedelta = timedelta(minutes=15),
        let_through: Collection[str] = (),
        client: meterhold.AsyncClient | None = None,
    ) -> None:
        """`price` answers micros for a model, as the gateway's callers name it, and its tokens.

        `max_output_tokens` limits requests that do not say. A hold lives for `ttl`, at most 7
        days: more than the longest answer takes. Of LiteLLM's call types only chat completions
        are metered; the others are refused, but for those in `let_through`, which are free.
        Without a `client` one is made with the first request, from the environment variables
        METERHOLD_ADDRESS, METERHOLD_API_KEY and METERHOLD_JOURNAL.
        """
        super().__init__()
        self._account = account
        self._price = price
        self._max_output_tokens = max_output_tokens
        self._ttl = ttl
        self._let_through = frozenset(let_through)
        self._own_client = client
        self._calls: dict[str, _Call] = {}

    async def async_pre_call_hook(
        self, user_api_key_dict: UserAPIKeyAuth, cache: object, data: dict[str, Any], call_type: str
    ) -> None:
        """Take the hold, or refuse the request (`ProxyLogging.pre_call_hook`)."""
        if call_type in self._let_through:
            return
        if call_type not in _METERED:
            raise refusals.not_sold(f"{call_type} is not for sale here")
        account = self._account(user_api_key_dict)
        if not account:
            raise refusals.not_sold("this key names no account to charge")
        self._forget_the_old()
        model = str(data.get("model"))
        try:
            worst_case = tokens.worst_case(data, self._max_output_tokens)
        except ValueError as error:
            raise refusals.not_sold(str(error), 400) from error
        leaving = AsyncExitStack()
        try:
            hold = await leaving.enter_async_context(
                self._client.hold(
                    account,
                    max(1, self._price(model, worst_case)),
                    ttl=self._ttl,
                    # Not every request that gets here goes on to a provider, and of those that do
                    # not some are dropped without a word (`_pre_call_with_fallbacks`).
                    on_expiry=meterhold.OnExpiry.RELEASE,
                    # A heartbeat would keep the hold of such a request for ever.
                    heartbeat=False,
                    overage=meterhold.Overage.OVERDRAFT,
                    labels={"model": model},
                )
            )
        except meterhold.MeterholdError as error:
            raise refusals.of_meterhold(error) from error
        _, bucket = get_or_create_metadata_bucket(data)
        bucket[_KEY] = hold.reservation_id
        self._calls[hold.reservation_id] = _Call(model, worst_case, hold, leaving)

    async def async_pre_call_deployment_hook(
        self, kwargs: dict[str, Any], call_type: object
    ) -> None:
        """Mark that the work begins (`litellm.utils.wrapper_async`, for every attempt).

        From here on a crash of the gateway is charged: the provider does the work all the same.
        """
        call = self._calls.get(_reservation_id(kwargs))
        if call is None or call.started:
            return
        try:
            await call.hold.start()
        except meterhold.MeterholdError:
            # To raise would make the router take the deployment for broken.
            _log.exception("hold %s is not marked as started", call.hold.reservation_id)
        call.started = True

    async def async_post_call_success_deployment_hook(
        self, request_data: Mapping[str, Any], response: object, call_type: object
    ) -> None:
        """Note the tokens of an answer (`litellm.utils.wrapper_async`).

        It is produced now and costs, even if a guardrail withholds it later on.
        """
        call = self._calls.get(_reservation_id(request_data))
        if call is not None:
            call.usage = getattr(response, "usage", None)

    async def async_post_call_success_hook(
        self, data: dict[str, Any], user_api_key_dict: UserAPIKeyAuth, response: object
    ) -> None:
        """Settle an answer that is not streamed (`ProxyLogging.post_call_success_hook`)."""
        call = self._calls.pop(_reservation_id(data), None)
        if call is not None:
            # LiteLLM adds the tokens to an answer that tells none; if not, all that is held is due.
            usage = call.usage or getattr(response, "usage", None) or call.worst_case
            await self._finish(call, lambda: usage)

    async def async_post_call_streaming_iterator_hook(
        self,
        user_api_key_dict: UserAPIKeyAuth,
        response: AsyncIterator[Any],
        request_data: dict[str, Any],
    ) -> AsyncGenerator[Any, None]:
        """Pass a stream on, and settle it however it ends.

        When the client hangs up, LiteLLM closes this generator, or cancels the task that waits
        for it (`litellm.proxy.proxy_server.async_data_generator`).
        """
        call = self._calls.pop(_reservation_id(request_data), None)
        counter = tokens.Counter(request_data)
        try:
            async for chunk in response:
                counter.see(chunk)
                yield chunk
        except Exception:
            counter.failed = True
            raise
        finally:
            if call is not None:
                await self._finish(call, counter.usage)

    async def async_post_call_failure_hook(
        self,
        request_data: dict[str, Any],
        original_exception: Exception,
        user_api_key_dict: UserAPIKeyAuth,
        traceback_str: str | None = None,
    ) -> None:
        """Release what failed, or settle it if it was produced before it failed.

        LiteLLM tells a cost of its own for what the provider bills anyway, such as a request that
        was cancelled half-way (`ProxyLogging.post_call_failure_hook`).
        """
        call = self._calls.pop(_reservation_id(request_data), None)
        if call is None:
            return
        usage = request_data.get("combined_usage_object")
        billed = isinstance(usage, litellm.Usage) and request_data.get("response_cost")
        await self._finish(call, lambda: call.usage or (usage if billed else None))

    async def _finish(self, call: _Call, count: Callable[[], litellm.Usage | None]) -> None:
        """Charge for what `count` answers, None for nothing, and end the hold.

        A failure is logged: an answer that was paid for must not be lost by it.
        """
        try:
            usage = count()
            if usage is not None:
                call.hold.charge(
                    self._price(call.model, usage), usage=tokens.stored(call.model, usage)
                )
            await call.leaving.aclose()
        except Exception:
            _log.exception("hold %s is not settled, it will expire", call.hold.reservation_id)

    @property
    def in_flight(self) -> int:
        """How many requests are between their hooks."""
        return len(self._calls)

    def _forget_the_old(self) -> None:
        """Drop calls that no hook ever asked for again; their holds have expired long ago."""
        oldest_seconds = _now_seconds() - self._ttl.total_seconds() - _FORGET_AFTER_SECONDS
        while self._calls:
            reservation_id, call = next(iter(self._calls.items()))
            if call.begin_seconds >= oldest_seconds:
                break
            del self._calls[reservation_id]

    @property
    def _client(self) -> meterhold.AsyncClient:
        # LiteLLM imports callbacks before there is an event loop.
        if self._own_client is None:
            self._own_client = meterhold.AsyncClient(
                os.environ.get("METERHOLD_ADDRESS", "127.0.0.1:7717"),
                api_key=os.environ.get("METERHOLD_API_KEY"),
                journal=os.environ.get("METERHOLD_JOURNAL"),
            )
        return self._own_client


def _reservation_id(data: Mapping[str, Any]) -> str:
    for bucket in ("litellm_metadata", "metadata"):
        metadata = data.get(bucket)
        if isinstance(metadata, dict) and _KEY in metadata:
            return str(metadata[_KEY])
    return ""
