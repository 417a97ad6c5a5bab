"""The rate of new events in log time."""

from streaming.state.event_rate import EventRate


def test_rate_covers_the_last_ten_seconds() -> None:
    rate = EventRate()
    assert rate.per_second() == 0
    for second in range(30):
        rate.add(1000 * second, 5)
    assert rate.per_second() == 5 * 11 / 10  # both ends of the window
    assert len(rate.recent) == 11


def test_events_of_one_millisecond_share_an_entry_and_survive_a_restart() -> None:
    rate = EventRate()
    for _ in range(100):
        rate.add(7, 2)
    assert list(rate.recent) == [(7, 200)]
    restored = EventRate(rate.state())
    assert (restored.per_second(), restored.state()) == (200.0, [[7, 200]])
