"""A warning is logged at most once a minute."""

import logging

import pytest

from streaming.rate_limited_warning import WARNING_INTERVAL_S, RateLimitedWarning


def test_warning_is_logged_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    now = 5.0
    warning = RateLimitedWarning(logging.getLogger("any"), "%s took %.1f s.", lambda: now)
    for passed in (0.0, WARNING_INTERVAL_S - 1, 1.0):
        now += passed
        warning.warn(f"at {now:g}", 1.25)
    assert [record.getMessage() for record in caplog.records] == ["at 5 took 1.2 s.", "at 65 took 1.2 s."]
