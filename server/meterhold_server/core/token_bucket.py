"""How often a caller may come: a bucket of tokens, filled at a steady rate."""

from __future__ import annotations


class TokenBucket:
    """Holds up to one second's worth of tokens.

    What comes is let in while there is a token, and may leave the bucket in debt: a message of a
    thousand operations passes, and is paid for by those that come after it.
    """

    __slots__ = ("_tokens", "_until", "per_second")

    def __init__(self, per_second: int, now: float) -> None:
        """A full bucket. `now` is on any clock that only goes forward, in seconds."""
        self.per_second = per_second
        self._tokens = float(per_second)
        self._until = now

    def take(self, count: int, now: float) -> float:
        """Take `count` tokens. Answers 0, or how many seconds until it is worth coming again."""
        filled = self._tokens + (now - self._until) * self.per_second
        self._tokens = min(filled, self.per_second)
        self._until = now
        if self._tokens < 1:
            return (1 - self._tokens) / self.per_second
        self._tokens -= count
        return 0.0
