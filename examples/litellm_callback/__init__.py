"""Prepaid credits for a LiteLLM gateway."""
