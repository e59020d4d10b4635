"""An LLM proxy that speaks OpenAI's chat completions and sells tokens for prepaid credits."""
