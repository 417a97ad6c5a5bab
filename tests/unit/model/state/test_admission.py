"""Title admission: distinct users, the bounded room of waiting titles, erasure, restarts."""

import pytest

from model import checkpoint
from model.state.admission import TITLE_HASH_BYTES, TitleAdmission
from tests.support.learner import find_in_state, state_differences


def test_title_is_admitted_by_distinct_users() -> None:
    admission = TitleAdmission(capacity=10, min_users=3)
    assert [admission.admit("t", user) for user in ("a", "a", "b", "a", "b", "c")] == [False] * 5 + [True]
    assert len(admission) == 0
    assert not admission.admit("t", "c")  # starts again, for example after an eviction of its row


def test_one_user_is_enough_if_the_setting_says_so() -> None:
    admission = TitleAdmission(capacity=10, min_users=1)
    assert admission.admit("t", "a")
    assert len(admission) == 0


def test_room_evicts_the_least_recently_used_title() -> None:
    admission = TitleAdmission(capacity=2, min_users=2)
    for title in ("x", "y", "x", "z"):  # evicts y
        assert not admission.admit(title, "a")
    assert len(admission) == 2
    assert not admission.admit("y", "b")  # a's event was lost; evicts x
    assert admission.admit("z", "b")
    assert not admission.admit("x", "b")


def test_launched_title_leaves_the_room() -> None:
    admission = TitleAdmission(capacity=2, min_users=2)
    admission.admit("x", "a")
    admission.remove("x")
    admission.remove("never seen")
    assert len(admission) == 0


def test_erased_user_no_longer_counts_and_leaves_no_hash() -> None:
    admission, without = TitleAdmission(capacity=9, min_users=3), TitleAdmission(capacity=9, min_users=3)
    for title, user in (("x", "b"), ("y", "c"), ("x", "c")):
        without.admit(title, user)
    for title, user in (("x", "a"), ("x", "b"), ("y", "a"), ("y", "c"), ("only a", "a")):
        admission.admit(title, user)
    admission.erase_user("a")
    admission.admit("x", "c")
    assert state_differences(admission.state_dict(), without.state_dict()) == []


@pytest.mark.parametrize("titles", [0, 1, 30])
def test_restart_changes_nothing_that_follows(titles: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    url = str(tmp_path_factory.mktemp("checkpoint"))
    original, restored = TitleAdmission(20, 3), TitleAdmission(20, 3)
    for n in range(titles):
        original.admit(f"t{n}", "a")
        original.admit(f"t{n // 2}", "b")
    checkpoint.save(url, {"admission": original.state_dict()}, {})
    restored.load_state_dict(checkpoint.load(url)[0]["admission"])
    assert len(restored) == min(titles, 20)
    admitted = [[one.admit(f"t{n}", "c") for n in range(40)] for one in (original, restored)]
    assert admitted[0] == admitted[1]
    assert any(admitted[0]) == (titles > 0)
    assert state_differences(restored.state_dict(), original.state_dict()) == []


def test_state_has_a_bound_in_bytes_and_no_ids() -> None:
    admission = TitleAdmission(capacity=50, min_users=3)
    for n in range(200):
        for user in ("long user id " * 20, "another user " * 20):
            admission.admit(f"long title id {n} " * 12, user)
    state = admission.state_dict()
    assert sum(array.nbytes for array in state.values()) <= 50 * (TITLE_HASH_BYTES + 8 * 3)
    assert find_in_state(state, "title id") + find_in_state(state, "user id") == []


def test_smaller_settings_apply_to_a_restored_state() -> None:
    original, restored = TitleAdmission(capacity=9, min_users=3), TitleAdmission(capacity=2, min_users=2)
    for n in range(5):
        original.admit(f"t{n}", "a")
        original.admit(f"t{n}", "b")
    restored.load_state_dict(original.state_dict())
    assert len(restored) == 2
    assert restored.admit("t4", "a")
