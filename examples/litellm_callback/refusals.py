"""What the gateway answers when it does not serve a request.

The exception is LiteLLM's own, which it answers as it stands
(`ProxyBaseLLMRequestProcessing.handle_llm_api_exception`); others it reports as failures of a
provider.
"""

from __future__ import annotations

from litellm.proxy._types import ProxyException

import meterhold


def not_sold(message: str, status_code: int = 403) -> ProxyException:
    """A request that cannot be metered."""
    return ProxyException(message, "invalid_request_error", None, status_code)


def of_meterhold(error: meterhold.MeterholdError) -> ProxyException:
    """402 for lack of credits; without an answer from Meterhold nothing is served, 503."""
    if isinstance(error, meterhold.InsufficientCredits):
        return ProxyException(
            f"this request may cost {error.required_micros} micros and {error.available_micros} "
            "are available: top up, or ask for fewer tokens with max_tokens",
            "insufficient_quota",
            None,
            402,
            provider_specific_fields={
                "available_micros": error.available_micros,
                "required_micros": error.required_micros,
            },
        )
    message = "credits cannot be checked right now; try again"
    return ProxyException(message, "server_error", None, 503, {"retry-after": "1"})
