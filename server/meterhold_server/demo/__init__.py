"""The main job on real input: a trace of LLM requests, replayed against a service of its own."""

from __future__ import annotations


class DemoError(Exception):
    """The demo cannot go on."""
