"""Keyed states end after their time, or earlier if there are too many, and never because of one wrong clock."""

from streaming.state.expiry import DAY_MS, FOREVER, MAX_DUE, Expiration, Expiry

NOW = 20_000 * DAY_MS


def keys(due: list[tuple[str, Expiration]]) -> list[str]:
    return sorted(key for key, _ in due)


def test_state_is_due_on_the_day_after_its_end() -> None:
    expiry = Expiry(100)
    expiry.add("a", NOW)
    expiry.add("b", NOW + 3 * DAY_MS)
    expiry.add("c", FOREVER)
    assert expiry.due(NOW, NOW) == []
    assert keys(expiry.due(NOW + DAY_MS, NOW + DAY_MS)) == ["a"]
    assert expiry.count == 2


def test_one_wrong_clock_ends_nothing() -> None:
    expiry = Expiry(100)
    expiry.add("a", NOW)
    assert expiry.due(NOW + 900 * DAY_MS, NOW) == []  # a record from the future
    other = Expiry(100)
    other.add("a", NOW)
    assert other.due(NOW, NOW + 900 * DAY_MS) == []  # this host's clock


def test_state_with_later_records_is_noted_again() -> None:
    expiry = Expiry(100)
    expiry.add("a", NOW)
    ((key, expiration),) = expiry.due(NOW + DAY_MS, NOW + DAY_MS)
    assert not expiry.ends(key, NOW + 5 * DAY_MS, 0, expiration)
    assert expiry.due(NOW + 2 * DAY_MS, NOW + 2 * DAY_MS) == []
    ((key, expiration),) = expiry.due(NOW + 6 * DAY_MS, NOW + 6 * DAY_MS)
    assert expiry.ends(key, NOW + 5 * DAY_MS, 0, expiration)
    assert expiry.count == 0


def test_states_beyond_the_limit_end_in_the_order_of_their_days() -> None:
    expiry = Expiry(2)
    for number in range(5):
        expiry.add(str(number), NOW + number * DAY_MS)
    due = expiry.due(NOW, NOW)
    assert keys(due) == ["0", "1", "2"]
    assert [expiry.ends(key, NOW + int(key) * DAY_MS, 0, at) for key, at in due] == [True] * 3
    assert expiry.count == 2


def test_state_that_must_be_kept_does_not_end_because_of_the_limit() -> None:
    expiry = Expiry(0)
    expiry.add("erased", NOW)
    ((key, expiration),) = expiry.due(NOW, NOW - 1)
    assert not expiry.ends(key, NOW, NOW, expiration)
    assert expiry.count == 1


def test_one_poll_ends_a_bounded_number_of_states() -> None:
    expiry = Expiry(10**6)
    for number in range(3 * MAX_DUE):
        expiry.add(str(number), NOW)
    assert [len(expiry.due(NOW + DAY_MS, NOW + DAY_MS)) for _ in range(4)] == [MAX_DUE] * 3 + [0]


def test_keys_are_those_of_all_states_also_while_they_are_due() -> None:
    expiry = Expiry(100)
    for key in ("ends", "stays", "later"):
        expiry.add(key, NOW if key != "later" else NOW + 9 * DAY_MS)
    due = dict(expiry.due(NOW + DAY_MS, NOW + DAY_MS))
    assert sorted(expiry.keys()) == ["ends", "later", "stays"]
    assert expiry.ends("ends", NOW, 0, due["ends"])
    assert not expiry.ends("stays", NOW + 5 * DAY_MS, 0, due["stays"])
    assert sorted(expiry.keys()) == ["later", "stays"]
