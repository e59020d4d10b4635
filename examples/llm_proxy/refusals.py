"""What the proxy answers when it does not serve a request: always OpenAI's error shape."""

from __future__ import annotations

from typing import Any

import httpx
from starlette.responses import JSONResponse, Response

import meterhold

_RETRY_AFTER_SECONDS = 1

# Bad key, no credits left, no access: they are about the proxy's own account upstream.
_OUR_FAULT = frozenset({401, 402, 403})
_PASSED_ON = ("content-type", "retry-after")


class Refusal(Exception):
    """A request that is not served, and the answer that says why."""

    def __init__(
        self,
        status_code: int,
        message: str,
        *,
        kind: str = "invalid_request_error",
        code: str | None = None,
        headers: dict[str, str] | None = None,
        **numbers: int,
    ) -> None:
        super().__init__(message)
        error: dict[str, Any] = {"message": message, "type": kind, "param": None, "code": code}
        self.response = JSONResponse({"error": error | numbers}, status_code, headers)


def of_meterhold(error: meterhold.MeterholdError) -> Refusal:
    """Why a request gets no hold.

    402 is for the caller to act upon; OpenAI's own 429 would make its clients try again. Without
    an answer from Meterhold nothing is served: a proxy that failed open would give tokens away.
    """
    if isinstance(error, meterhold.InsufficientCredits):
        return Refusal(
            402,
            f"This request may cost {error.required_micros} micros and {error.available_micros} "
            "are available. Top up, or ask for fewer tokens with max_tokens.",
            kind="insufficient_quota",
            code="insufficient_credits",
            available_micros=error.available_micros,
            required_micros=error.required_micros,
        )
    seconds = max(_RETRY_AFTER_SECONDS, round(error.retry_delay_seconds or 0))
    return Refusal(
        503,
        "The credits of this account cannot be checked right now. Try again.",
        kind="server_error",
        code="metering_unavailable",
        headers={"retry-after": str(seconds)},
    )


async def of_upstream(answer: httpx.Response) -> Response:
    """Pass on what the upstream refused, unless it refused this proxy itself."""
    if answer.status_code in _OUR_FAULT:
        return _failure("The provider does not accept this proxy.").response
    passed_on = {name: answer.headers[name] for name in _PASSED_ON if name in answer.headers}
    return Response(await answer.aread(), answer.status_code, passed_on)


def of_broken_upstream(error: Exception) -> Refusal:
    """The upstream could not be reached, broke off, or answered something else than JSON."""
    return _failure(f"The provider failed: {type(error).__name__}.")


def _failure(message: str) -> Refusal:
    return Refusal(502, message, kind="server_error", code="upstream_failed")
