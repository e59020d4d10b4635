"""Structured logs on standard error: a JSON object or a readable line per event. No bodies."""

from __future__ import annotations

import logging
import sys

import orjson
import structlog

from meterhold_server.config import LogFormat


def configure_logs(level: str, log_format: LogFormat) -> None:
    """Set up structlog for this process."""
    people = log_format == "console" or (log_format == "auto" and sys.stderr.isatty())
    shared: list[structlog.types.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    if people:
        ends: list[structlog.types.Processor] = [
            # Plain tracebacks: others show the values of variables, and with them secrets.
            structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
        ]
    else:
        ends = [
            structlog.processors.ExceptionRenderer(
                structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
            ),
            structlog.processors.JSONRenderer(lambda event, **_: orjson.dumps(event).decode()),
        ]
    structlog.configure(
        processors=[*shared, *ends],
        wrapper_class=structlog.make_filtering_bound_logger(
            logging.getLevelNamesMapping()[level.upper()]
        ),
        # A line in one write: several processes share the stream, and Python may be unbuffered.
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(handlers=[_Forwarder()], level=logging.WARNING, force=True)


class _Forwarder(logging.Handler):
    """Brings what libraries log into our format."""

    def emit(self, record: logging.LogRecord) -> None:
        structlog.get_logger().log(
            record.levelno,
            "library",
            logger=record.name,
            message=record.getMessage(),
            exc_info=record.exc_info,
        )
