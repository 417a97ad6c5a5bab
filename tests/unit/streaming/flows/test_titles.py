"""Flow `titles`: each of its rules, and a run with real services."""

import uuid
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow.parquet as pq
import pytest
from bytewax.recovery import RecoveryConfig, init_db_dir
from bytewax.testing import TestingSource, run_main
from confluent_kafka import Producer

from features.definitions import TITLE_SEMANTICS_SCHEMA
from features.store import offline_folder, open_store, write_title_semantics
from features.text_encoders import TextEncoder, load_encoder
from infra.topics import create_topics
from streaming.flows.titles import MAX_NAME_BYTES, build
from streaming.kafka.sink import KafkaSink
from streaming.kafka.source import KafkaSource, read_all
from streaming.records import Title, decode_log
from streaming.stores.feast_online import FeastSink
from streaming.stores.parquet_log import ParquetSink
from streaming.topics import ACTIVITY, DEAD_LETTERS, TITLE_LAUNCHES, TITLE_WITHDRAWALS, TITLES, Topic
from tests.support.titles import NOW, TOY, TitlesRun, launch, run_flow, titles_in, withdrawal

TOPICS = (TITLE_LAUNCHES, TITLE_WITHDRAWALS, TITLES, ACTIVITY, DEAD_LETTERS)


@pytest.fixture(scope="module")
def encode() -> TextEncoder:
    return load_encoder()


def test_launch_becomes_a_title_record_and_a_row(encode: TextEncoder) -> None:
    run = run_flow(encode, launch("1", 7, **TOY, ts=NOW - 5_000, released=-1_000))
    (title,) = run.written()
    assert msgspec.structs.replace(title, semantic=b"") == Title(
        title="1",
        name="Toy Story",
        genres=["Animation"],
        year=1995,
        released=-1_000,
        launched=NOW - 5_000,
        stamp=(NOW + 7) * 1_000,
        withdrawn=False,
        semantic=b"",
        appended=NOW + 7,
        offset=7,
        encoder="wordllama",
    )
    assert title.semantic == encode(["Toy Story. Animation. A cowboy doll is jealous."])[0].tobytes()
    (record,), (logged,) = run.titles.all(), run.activity.all()
    assert (record.topic, record.key) == (TITLES, b"1")
    assert (logged.topic, logged.key) == (ACTIVITY, b"1")
    assert decode_log(logged.value) == title
    (row,) = run.offline.all()
    assert run.online.all() == [row]
    assert row == {
        "title_id": "1",
        "event_timestamp": datetime(2023, 11, 14, 22, 13, 20, 7000, tzinfo=UTC),
        "created": datetime(2023, 11, 14, 22, 13, 20, 7000, tzinfo=UTC),
        "name": "Toy Story",
        "genres": ["Animation"],
        "year": 1995,
        "withdrawn": False,
        "semantic": np.frombuffer(title.semantic, "<f4").tolist(),
    }


def test_launch_without_ts_takes_its_append_time(encode: TextEncoder) -> None:
    (title,) = run_flow(encode, launch("1", 3)).written()
    assert (title.launched, title.stamp) == (NOW + 3, (NOW + 3) * 1000)


@pytest.mark.parametrize(
    ("fields", "has_vector"),
    [
        ({}, False),
        ({"name": "", "overview": " \n"}, False),
        ({"name": "Amélie 🎬"}, True),
        ({"overview": "Only this."}, True),
        ({"genres": ["Drama"]}, True),
        ({"text": {"tags": "slow burn"}}, True),
        ({"name": "🧸"}, True),
    ],
)
def test_only_a_title_with_text_has_an_embedding(encode: TextEncoder, fields: dict[str, Any], has_vector: bool) -> None:
    run = run_flow(encode, launch("1", **fields))
    (title,) = run.written()
    assert len(title.semantic) == (256 * 4 if has_vector else 0)
    assert len(run.offline.all()[0]["semantic"]) == (256 if has_vector else 0)
    assert run.reasons() == []


def test_relaunch_replaces_the_title_and_keeps_the_launch_time(encode: TextEncoder) -> None:
    first, second = run_flow(
        encode, launch("1", 0, **TOY, ts=1_000), launch("1", 1, name="Toy Story 1", ts=9_000)
    ).written()
    assert (second.name, second.genres, second.year) == ("Toy Story 1", [], None)
    assert (second.launched, second.stamp) == (1_000, (NOW + 1) * 1000)
    assert first.semantic != second.semantic


def test_unchanged_relaunch_is_not_passed_on(encode: TextEncoder) -> None:
    run = run_flow(encode, launch("1", 0, **TOY), launch("1", 1, **TOY), launch("1", 2, **TOY, ts=5), batch=1)
    assert [title.offset for title in run.written()] == [0]
    assert len(run.offline.all()) == len(run.activity.all()) == 1


def test_withdrawal_keeps_the_content_and_a_launch_restores_the_title(encode: TextEncoder) -> None:
    first, withdrawn, restored = run_flow(
        encode, launch("1", 0, **TOY), withdrawal("1", 1), launch("1", 2, **TOY), batch=1
    ).written()
    assert (withdrawn.withdrawn, withdrawn.name, withdrawn.genres, withdrawn.semantic) == (
        True,
        first.name,
        first.genres,
        first.semantic,
    )
    assert (restored.withdrawn, restored.semantic, restored.launched) == (False, first.semantic, first.launched)


def test_withdrawal_of_an_unknown_title_counts_once(encode: TextEncoder) -> None:
    run = run_flow(encode, withdrawal("1", 0), withdrawal("1", 1))
    assert [(title.withdrawn, title.name) for title in run.written()] == [(True, "")]


def test_withdrawal_in_a_launch_names_the_topic_of_withdrawals(encode: TextEncoder) -> None:
    run = run_flow(
        encode, launch("1", 0, **TOY), launch("1", 1, withdrawn=True), launch("1", 2, **TOY, withdrawn=False)
    )
    (reason,) = run.reasons()
    assert reason.startswith("moved: ")
    assert "title-withdrawals" in reason
    assert [title.withdrawn for title in run.written()] == [False]


def test_stored_name_and_genres_are_bounded_in_bytes_and_the_text_is_not_shortened(encode: TextEncoder) -> None:
    name, genres = "é" * 600, ["ü" * 200, "ö" * 200, "ä" * 200]
    (title,) = run_flow(encode, launch("1", name=name, genres=genres)).written()
    assert (title.name, title.genres) == ("é" * (MAX_NAME_BYTES // 2), genres[:2])
    assert title.semantic == encode([f"{name}. {', '.join(genres)}"])[0].tobytes()


def test_unknown_fields_and_any_key_are_valid(encode: TextEncoder) -> None:
    message = launch("1", mood="calm", name="x")._replace(key=None)
    assert [title.name for title in run_flow(encode, message).written()] == ["x"]


def test_silence_is_an_empty_batch_for_the_sinks_of_rows_only(encode: TextEncoder) -> None:
    run = TitlesRun(encode)
    run_main(run.flow(TestingSource([[launch("1")], []])))
    assert run.offline.items["0"] == run.online.items["0"] == [run.offline.all(), []]
    assert len(run.titles.items["0"]) == len(run.activity.items["0"]) == 1


def test_texts_of_a_poll_are_encoded_in_one_call() -> None:
    calls: list[list[str]] = []

    def encode(texts: Any) -> Any:
        calls.append(list(texts))
        return np.ones((len(texts), 2), np.float32)

    run = run_flow(TextEncoder("ones", 2, encode), *(launch(str(9 - n), n, name=f"t{n}") for n in range(9)))
    assert calls == [[f"t{n}" for n in range(9)]]
    assert [(title.offset, title.encoder) for title in run.written()] == [(n, "ones") for n in range(9)]


@pytest.mark.parametrize("epoch", [timedelta(0), timedelta(days=1)])  # nothing is reprocessed; everything is
def test_crash_changes_no_record(encode: TextEncoder, tmp_path: Path, epoch: timedelta) -> None:
    polls = [
        [launch("1", 0, **TOY, ts=9_000), launch("2", 1, name="x")],
        [launch("1", 2, name="y", ts=1_000)],
        [launch("1", 3, name="z"), launch("2", 4, name="x")],
    ]
    undisturbed = run_flow(encode, *(message for poll in polls for message in poll), batch=2)
    init_db_dir(tmp_path, 1)
    crashed = TitlesRun(encode)
    items: list[Any] = [*polls[:2], TestingSource.ABORT(), polls[2]]
    for _ in range(2):
        flow = crashed.flow(TestingSource(items))
        run_main(flow, epoch_interval=epoch, recovery_config=RecoveryConfig(str(tmp_path)))
    unique = list(dict.fromkeys(record.value for record in crashed.titles.all()))
    assert unique == [record.value for record in undisturbed.titles.all()]
    assert len(unique) == 4


def test_step_ids_are_keys_of_the_recovery_store(encode: TextEncoder) -> None:
    flow = TitlesRun(encode).flow(TestingSource([]))
    assert [step.step_id for step in steps(flow) if type(step).__name__ in ("input", "stateful_batch", "output")] == [
        "titles.title_launches",
        "titles.title_withdrawals",
        "titles.catalog",
        "titles.titles",
        "titles.activity",
        "titles.online",
        "titles.offline",
        "titles.dead_letters",
    ]


def steps(parent: Any) -> Iterator[Any]:
    for step in parent.substeps:
        yield step
        yield from steps(step) if type(step).__name__ not in ("input", "stateful_batch", "output") else ()


def test_launches_reach_kafka_feast_and_the_offline_log(
    encode: TextEncoder, kafka: str, redis_url: str, tmp_path: Path
) -> None:
    config = {"bootstrap.servers": kafka}
    names = {name: f"{name}-{uuid.uuid4().hex[:8]}" for name in TOPICS}
    create_topics(config, [Topic(name, 1, {}) for name in names.values()])
    store = open_store(redis_url, tmp_path / "feast", f"test_{uuid.uuid4().hex[:8]}")
    log = offline_folder(tmp_path / "feast", "title_semantics")
    (tmp_path / "recovery").mkdir()
    init_db_dir(tmp_path / "recovery", 1)

    def run() -> None:
        flow = build(
            launches=KafkaSource(config, names[TITLE_LAUNCHES], "titles", tail=False),
            withdrawals=KafkaSource(config, names[TITLE_WITHDRAWALS], "titles", tail=False),
            titles=RenamingSink(config, names),
            activity=RenamingSink(config, names),
            online=FeastSink(partial(write_title_semantics, store)),
            offline=ParquetSink(log, 1, TITLE_SEMANTICS_SCHEMA),
            dead_letters=RenamingSink(config, names),
            encode=encode,
        )
        recovery = RecoveryConfig(str(tmp_path / "recovery"))
        run_main(flow, epoch_interval=timedelta(milliseconds=20), recovery_config=recovery)

    produce(config, names[TITLE_LAUNCHES], [launch("1", **TOY).value, b"nonsense", launch("2", name="Amélie 🎬").value])
    run()
    produce(config, names[TITLE_LAUNCHES], [launch("2", name="Amélie 🎬").value])
    produce(config, names[TITLE_WITHDRAWALS], [withdrawal("1").value])
    run()

    known = titles_in(message.value for message in read_all(config, names[TITLES]))
    assert [(title.title, title.withdrawn, title.offset) for title in known] == [
        ("1", False, 0),
        ("2", False, 2),
        ("1", True, 0),
    ]
    assert [decode_log(message.value) for message in read_all(config, names[ACTIVITY]) if message.value] == known
    assert [message.value for message in read_all(config, names[DEAD_LETTERS])] == [b"nonsense"]
    entities = [{"title_id": "1"}, {"title_id": "2"}]
    features = ["title_semantics:name", "title_semantics:withdrawn", "title_semantics:semantic"]
    values = store.get_online_features(features=features, entity_rows=entities).to_dict()
    assert (values["name"], values["withdrawn"]) == (["Toy Story", "Amélie 🎬"], [True, False])
    assert values["semantic"][0] == np.frombuffer(known[0].semantic, "<f4").tolist()
    rows = pq.read_table(log).sort_by("created").to_pylist()
    assert [(row["title_id"], row["withdrawn"]) for row in rows] == [("1", False), ("2", False), ("1", True)]


class RenamingSink(KafkaSink):
    """The Kafka sink, which writes to this test's topics instead of the fixed ones."""

    def __init__(self, config: dict[str, str], names: dict[str, str]) -> None:
        super().__init__(config)
        self.names = names

    def build_part(self, step_id: str, for_part: str, resume_state: None) -> Any:
        part = super().build_part(step_id, for_part, resume_state)
        write, names = part.write_batch, self.names

        def write_renamed(values: Any) -> None:
            write([[record._replace(topic=names[record.topic]) for record in records] for records in values])

        setattr(part, "write_batch", write_renamed)  # noqa: B010 - mypy rejects an assignment to a method
        return part


def produce(config: dict[str, str], topic: str, values: Iterable[bytes | None]) -> None:
    producer = Producer(config)
    for value in values:
        producer.produce(topic, value, b"key")
    assert producer.flush(10) == 0


def test_state_ends_after_its_lifetime_and_the_title_is_new_again(encode: TextEncoder) -> None:
    day = 86_400_000
    polls = [[launch("1", 0, **TOY), launch("2", 1, **TOY)], [launch("2", day, **TOY)], [launch("3", 3 * day)], []]
    again = [[launch("1", 3 * day + 1, **TOY), launch("2", 3 * day + 2, **TOY)]]
    run = TitlesRun(encode)
    source = TestingSource([*polls, *again])
    run_main(run.flow(source, lifetime_ms=2 * day + 1, clock=lambda: (NOW + 3 * day) / 1000))
    assert [title.title for title in run.written()] == ["1", "2", "3", "1"]  # "2" was sent again, unchanged
