"""LiteLLM's proxy, as far as a callback can see it.

The proxy itself needs much that is not installed here. This follows, in LiteLLM 1.106,
`ProxyBaseLLMRequestProcessing._process_llm_request` and `.handle_llm_api_exception`, and for
streams `litellm.proxy.proxy_server.async_data_generator`. Between the hooks is LiteLLM's own
router, which calls the rest of them (`litellm.utils.wrapper_async`).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import Any
from uuid import uuid4

from litellm.proxy._types import UserAPIKeyAuth
from litellm.router import Router

from examples.litellm_callback.callback import MeterholdCallback

CALL_TYPE = "acompletion"


def let_pass(answer: object) -> None:
    """A guardrail that minds nothing."""


class Gateway:
    """Serves one model, `public`, that answers `mock_response`."""

    def __init__(self, callback: MeterholdCallback, mock_response: str | Exception) -> None:
        self.callback = callback
        self.guardrail: Callable[[object], None] = let_pass
        parameters = {"model": "gpt-4o-mini", "mock_response": mock_response}
        self._router = Router(
            model_list=[{"model_name": "public", "litellm_params": parameters}], num_retries=0
        )

    async def complete(self, key: UserAPIKeyAuth, **request: Any) -> Any:
        data = {"model": "public", "litellm_call_id": uuid4().hex, "metadata": {}} | request
        try:
            await self.callback.async_pre_call_hook(key, None, data, CALL_TYPE)
            answer = await self._router.acompletion(**data)
            if data.get("stream"):
                return self._stream(key, answer, data)
            self.guardrail(answer)
            await self.callback.async_post_call_success_hook(data, key, answer)
        except Exception as error:
            await self.callback.async_post_call_failure_hook(data, error, key)
            raise
        return answer

    async def _stream(
        self, key: UserAPIKeyAuth, answer: Any, data: dict[str, Any]
    ) -> AsyncGenerator[Any, None]:
        guarded = self.callback.async_post_call_streaming_iterator_hook(key, answer, data)
        try:
            async for chunk in guarded:
                yield chunk
        except (asyncio.CancelledError, GeneratorExit):
            await guarded.aclose()
            raise
        except Exception as error:
            await self.callback.async_post_call_failure_hook(data, error, key)
            raise
        finally:
            await answer.aclose()
