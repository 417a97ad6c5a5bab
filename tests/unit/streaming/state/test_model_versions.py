"""Announced versions are read from the topic, and the newest cause decides whether a rollback is active."""

from typing import Literal

import pytest
from confluent_kafka import Producer
from msgspec import structs

from streaming.records import Version, to_json
from streaming.state.model_versions import active_rollback, read_versions
from streaming.topics import MODEL_VERSIONS

Cause = Literal["learned", "rollback", "rollforward"]


def version(step: int, cause: Cause = "learned") -> Version:
    return Version(path=f"v{step}", step=step, position=10 * step, learned=0, mrr=None, created=0, cause=cause)


def announce(config: dict[str, str], *values: bytes) -> None:
    producer = Producer(config)
    for value in values:
        producer.produce(MODEL_VERSIONS, value, partition=0)
    assert producer.flush(20) == 0


@pytest.mark.parametrize(
    ("causes", "expected"),
    [
        ([], None),
        (["learned", "learned"], None),
        (["learned", "rollback"], 1),
        (["learned", "rollback", "learned"], 1),
        (["learned", "rollback", "rollback", "learned"], 2),
        (["learned", "rollback", "rollforward", "learned"], None),
        (["rollforward", "rollback"], 1),
    ],
)
def test_newest_cause_decides_whether_a_rollback_is_active(causes: list[Cause], expected: int | None) -> None:
    assert active_rollback({number: version(number, cause) for number, cause in enumerate(causes)}) == expected


def test_numbers_are_offsets_and_invalid_records_are_skipped(new_kafka: dict[str, str]) -> None:
    assert read_versions(new_kafka) == {}
    announce(new_kafka, to_json(version(4)), b"no JSON", b'{"path": 1}', to_json(version(9, "rollback")))
    assert read_versions(new_kafka) == {0: version(4), 3: version(9, "rollback")}
    assert list(read_versions(new_kafka)) == [0, 3]


def test_versions_of_a_replaced_learner_are_left_out(new_kafka: dict[str, str]) -> None:
    owners: list[tuple[int, Cause]] = [(5, "learned"), (7, "learned"), (5, "learned"), (5, "rollback"), (7, "learned")]
    found = [structs.replace(version(n, cause), owner=owner) for n, (owner, cause) in enumerate(owners)]
    found.append(structs.replace(found[0], cause="rollback", automatic=True))
    announce(new_kafka, *map(to_json, found))
    assert list(read_versions(new_kafka)) == [0, 1, 3, 4]  # an operator may announce an old version again
