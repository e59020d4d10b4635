"""The proxy: a hold before the work, tokens while it runs, a charge for what was produced."""

from __future__ import annotations

import json
from contextlib import AbstractAsyncContextManager

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

import meterhold
from examples.llm_proxy import refusals, sse
from examples.llm_proxy.chat import Chat, parse
from examples.llm_proxy.hang_up import stop_on_hang_up
from examples.llm_proxy.meter import Meter
from examples.llm_proxy.refusals import Refusal
from examples.llm_proxy.reply import Reply
from examples.llm_proxy.settings import Settings

_STREAM_HEADERS = {"content-type": "text/event-stream", "cache-control": "no-cache"}


def create_app(
    settings: Settings, credits_client: meterhold.AsyncClient, upstream: httpx.AsyncClient
) -> Starlette:
    """Make the proxy. `upstream` brings its base URL, key and timeouts along."""
    completions = ChatCompletions(settings, credits_client, upstream)
    return Starlette(routes=[Route("/v1/chat/completions", completions, methods=["POST"])])


class ChatCompletions:
    """`POST /v1/chat/completions`, as an ASGI application.

    It streams from inside the block that holds the credits, instead of handing a generator to the
    framework: whatever becomes of the client, that block is left, and what was produced is settled.
    """

    def __init__(
        self, settings: Settings, credits_client: meterhold.AsyncClient, upstream: httpx.AsyncClient
    ) -> None:
        self._settings = settings
        self._credits = credits_client
        self._upstream = upstream

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        try:
            account = self._account_of(request)
            chat = parse(await request.body(), self._settings)
        except Refusal as refusal:
            await refusal.response(scope, receive, send)
        else:
            serving = self._serve(account, chat, request, send)
            # An answer that is not streamed is finished: the bill comes with it.
            await (stop_on_hang_up(receive, serving) if chat.stream else serving)

    def _account_of(self, request: Request) -> str:
        account = self._settings.account_of(request.headers.get("authorization", ""))
        if account is None:
            raise Refusal(401, "send a bearer token that is known here", code="invalid_api_key")
        return account

    async def _serve(self, account: str, chat: Chat, request: Request, send: Send) -> None:
        reply = Reply(send)
        answered = False
        hold = self._credits.hold(
            account,
            chat.worst_case_micros,
            # Tokens that exist are charged in full, should the upstream exceed its own limit.
            overage=meterhold.Overage.OVERDRAFT,
            # A charge at expiry, after a crash, has labels but no usage.
            labels={"provider": chat.model.provider, "model": chat.model.name},
        )
        try:
            async with hold:
                response = await self._answer(chat, hold, reply)
                answered = True
        except meterhold.MeterholdError as error:
            # What has been answered is delivered: the client goes on trying to settle it.
            if not answered:
                response = refusals.of_meterhold(error).response
        if response is None:
            await reply.end(f": charged_micros={hold.collected_micros}\n\n".encode())
        else:
            response.headers["x-charged-micros"] = str(hold.collected_micros)
            await response(request.scope, request.receive, send)

    async def _answer(self, chat: Chat, hold: meterhold.AsyncHold, reply: Reply) -> Response | None:
        """Let the upstream do the work. Answers the response to send; None if it is being sent."""
        meter = Meter(chat)
        try:
            async with self._ask(chat) as answer:
                if answer.status_code != httpx.codes.OK:
                    return await refusals.of_upstream(answer)
                meter.accepted()
                if chat.stream:
                    await _pass_on(answer, chat, meter, reply)
                    return None
                body = await answer.aread()
                meter.see(json.loads(body))
                return Response(body, media_type="application/json")
        except (httpx.HTTPError, ValueError) as error:
            meter.failed()
            failure = refusals.of_broken_upstream(error).response
            if not reply.started:
                return failure
            await reply.write(b"data: " + bytes(failure.body) + b"\n\n")
            return None
        finally:
            if meter.cost_micros:
                hold.charge(meter.cost_micros, usage=meter.usage)

    def _ask(self, chat: Chat) -> AbstractAsyncContextManager[httpx.Response]:
        headers = {"content-type": "application/json"}
        return self._upstream.stream("POST", "chat/completions", content=chat.body, headers=headers)


async def _pass_on(answer: httpx.Response, chat: Chat, meter: Meter, reply: Reply) -> None:
    await reply.start(_STREAM_HEADERS)
    async for event in sse.events(answer.aiter_bytes()):
        chunk = sse.chunk_of(event)
        meter.see(chunk)
        asked_by_us = chunk.get("choices") == [] and not chat.wants_usage
        if not asked_by_us:
            await reply.write(event)
