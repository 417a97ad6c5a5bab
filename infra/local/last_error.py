"""Finds the error that ended a flow in its log file.

Libraries print to the same file, also after the error: an interpreter that ends may report leaks of native code. So the
end of the file is often not the reason.
"""

import json
import re
from pathlib import Path
from typing import Final

from infra.local.processes import log_tail

SEARCHED_LINES: Final = 400  # at the end of the file
_CRITICAL: Final = re.compile(r"^\S+ CRITICAL [\w/]+: (.*)$")  # as in `infra.run.logs`
START_MESSAGE: Final = "Starting with the data folder"  # the first message of each run
_TRACEBACK: Final = "Traceback (most recent call last):"


def last_error(log: Path, start: int = 0) -> str:
    """The last error of the last run in a log file: its message, and the exception's. Without one: the last lines.

    `start` is the size in bytes that the file had before that run, which may have written nothing.
    """
    lines, exception = log_tail(log, SEARCHED_LINES, start).splitlines(), ""
    for at in range(len(lines) - 1, -1, -1):
        line = lines[at]
        if message := _critical(line):
            return message
        if found := _CRITICAL.match(line):
            return " ".join(filter(None, (found[1], exception)))
        if line.startswith("premiere: "):
            return line.removeprefix("premiere: ")
        if line == _TRACEBACK and not exception:
            exception = _exception(lines[at:])
        if START_MESSAGE in line:
            break
    return exception or log_tail(log, start=start)


def _critical(line: str) -> str:
    """The message of a CRITICAL line in JSON, with the exception's last line; empty for every other line."""
    if not line.startswith("{"):
        return ""
    try:
        fields = json.loads(line)
    except ValueError:
        return ""
    if not isinstance(fields, dict) or fields.get("level") != "CRITICAL":
        return ""
    return " ".join(
        filter(None, (str(fields.get("message")), _exception(str(fields.get("exception", "")).splitlines())))
    )


def _exception(lines: list[str]) -> str:
    """Class and message of the last exception whose traceback is in these lines."""
    starts = [at for at, line in enumerate(lines) if line == _TRACEBACK]
    after = lines[starts[-1] + 1 :] if starts else []
    return next((line for line in after if line and not line[0].isspace()), "")
