"""How a flow logs to its standard error: one line per message, as text or as a JSON object.

Text has the time (UTC), the level, the flow and the message; the traceback of an exception follows its line. In JSON it
is the field `exception`. The loggers of libraries report from WARNING on.
"""

import json
import logging
import sys
import time
from typing import Any, Final

from infra.settings import Settings

OWN_LOGGERS: Final = ("streaming", "infra", "model", "features")


def configure_logs(settings: Settings, flow: str, worker: int = 0) -> None:
    """Send all log messages of this process to standard error."""
    name = flow if not worker else f"{flow}/{worker}"
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonFormatter(name) if settings.log_format == "json" else _TextFormatter(name))
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    for own in OWN_LOGGERS:
        logging.getLogger(own).setLevel(settings.log_level.upper())
    logging.captureWarnings(True)


def _time(record: logging.LogRecord) -> str:
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(record.created))}.{int(record.msecs):03d}Z"


class _FlowFormatter(logging.Formatter):
    """Knows the flow."""

    def __init__(self, flow: str) -> None:
        super().__init__()
        self.flow = flow


class _TextFormatter(_FlowFormatter):
    """`2026-11-30T20:18:46.123Z INFO learn: Learning from offset 4,711.`"""

    def formatMessage(self, record: logging.LogRecord) -> str:
        return f"{_time(record)} {record.levelname} {self.flow}: {record.message}"


class _JsonFormatter(_FlowFormatter):
    """One JSON object per line."""

    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, Any] = {"time": _time(record), "level": record.levelname, "flow": self.flow}
        fields |= {"logger": record.name, "message": record.getMessage()}
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return json.dumps(fields, ensure_ascii=False)
