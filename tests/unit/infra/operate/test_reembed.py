"""`premiere reembed` writes every title again with the new encoder, also if it is killed in between."""

from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow.dataset as ds
import pytest
from bytewax.testing import TestingSource, run_main
from msgspec import structs

from features.store import offline_folder
from features.text_encoders import TextEncoder
from infra.errors import PremiereError, SettingsError
from infra.local import data_lock
from infra.operate import reembed as reembedding
from infra.operate.reembed import Plan, Writer, embedded_again, make_plan, reembed, write_titles
from infra.run.runner import feast_folder
from infra.settings import Settings
from streaming.flows.title_output import catalog_record, log_record
from streaming.kafka.sink import KafkaSink, Outgoing
from streaming.kafka.source import read_all
from streaming.records import CatalogTitle, TextSpace, Title, decode_catalog_title, decode_log
from streaming.state.text_space import check_encoder, newest_title_record, space_records, write_records
from streaming.state.title_embedder import TitleEmbedder, VectorSpace
from streaming.topics import ACTIVITY, TITLES
from tests.support.feast_client import feast_client
from tests.support.titles import TitlesRun, encoder, launch, run_flow, space_of, withdrawal

OLD, NEW, THIRD = encoder("old", 4), encoder("new", 6), encoder("third", 4)
TITLES_WRITTEN: Final = 7


@pytest.fixture
def settings(new_kafka: dict[str, str], redis_url: str, tmp_path: Path) -> Settings:
    """A deployment with seven titles of the old encoder: one changed twice, one withdrawn, one without text."""
    launches = [launch(str(n), n, name=f"title {n}", overview="x" * n) for n in range(TITLES_WRITTEN - 1)]
    run = run_flow(OLD, *launches, launch("0", 10, name="title 0 again"), withdrawal("1", 11), launch("6", 12), batch=1)
    titles = [decode_catalog_title(record.value) for record in run.titles.all()]
    known = [title for title in titles if isinstance(title, CatalogTitle)]
    sink = KafkaSink(new_kafka)
    write_records(sink, list(space_records(space_of(OLD)).values()))
    write_records(sink, [*map(catalog_record, known), *map(log_record, known)])
    return Settings(bootstrap_servers=new_kafka["bootstrap.servers"], redis_url=redis_url, data_dir=tmp_path)


def newest(settings: Settings, topic: str) -> dict[str, Title]:
    """The newest record of each title."""
    found: dict[str, Title] = {}
    for message in read_all(settings.kafka_config(), topic):
        record = decode_catalog_title(message.value or b"")
        if isinstance(record, Title) and record.stamp >= getattr(found.get(record.title), "stamp", 0):
            found[record.title] = record
    return found


def spaces(settings: Settings, topic: str) -> list[tuple[str, bool]]:
    records = [decode_log(message.value or b"") for message in read_all(settings.kafka_config(), topic)]
    return [(record.encoder, record.complete) for record in records if isinstance(record, TextSpace)]


def test_every_title_is_written_again_to_all_places(settings: Settings) -> None:
    before = newest(settings, TITLES)
    lines: list[str] = []
    reembed(settings, lines.append, NEW)
    assert "7 of 7 titles" in lines[-1]
    for topic in (TITLES, ACTIVITY):
        after = newest(settings, topic)
        assert after.keys() == before.keys()
        for name, title in after.items():
            assert (title.width, title.encoder) == (0 if name == "6" else 6, "new")
            assert title.stamp == before[name].stamp + 1
            assert (title.name, title.withdrawn, title.launched) == (
                before[name].name, before[name].withdrawn, before[name].launched
            )  # fmt: skip
    assert spaces(settings, TITLES) == [("old", True), ("new", False), ("new", True)]
    assert spaces(settings, ACTIVITY) == [("old", True), ("new", False)]
    check_encoder(newest_title_record(settings.kafka_config()), space_of(NEW))
    rows = feast_client(settings).get_online_features(
        ["title_semantics:semantic", "title_semantics:withdrawn"], [{"title_id": str(n)} for n in range(7)]
    ).to_dict()  # fmt: skip
    assert [len(vector or []) for vector in rows["semantic"]] == [6] * 6 + [0]
    assert rows["withdrawn"][1]
    folder = offline_folder(feast_folder(settings), "title_semantics")
    assert sorted(ds.dataset(folder).to_table()["title_id"].to_pylist()) == [str(n) for n in range(7)]
    reembed(settings, lines.append, NEW)
    assert "already" in lines[-1]


class KilledError(Exception):
    """Stands for `kill -9`: nothing after it runs."""


def interrupted(settings: Settings, encode: TextEncoder, writes: int) -> bool:
    """Run until this number of writes; False if the run needed no more."""
    plan, sink, left = (
        make_plan(settings.kafka_config(), space_of(encode)),
        KafkaSink(settings.kafka_config()),
        iter(range(writes)),
    )

    def write(records: list[Outgoing]) -> None:
        if next(left, None) is None:
            raise KilledError
        write_records(sink, records)

    def write_rows(rows: list[dict[str, Any]]) -> None:
        if next(left, None) is None:
            raise KilledError

    if plan is not None:
        try:
            write_titles(settings.kafka_config(), TitleEmbedder(encode), plan, Writer(write, write_rows))
        except KilledError:
            return True
    return False


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reembedding, "BATCH_TITLES", 2)


@pytest.mark.usefixtures("small_batches")
def test_run_that_is_killed_anywhere_is_continued(settings: Settings) -> None:
    before, kills = newest(settings, TITLES), 0
    while interrupted(settings, NEW, kills % 9 + 1):  # a run makes at most 15 writes
        kills += 1
        assert kills < 60
    assert kills >= 4
    for topic in (TITLES, ACTIVITY):
        after = newest(settings, topic)
        assert {title.encoder for title in after.values()} == {"new"}
        assert all(title.stamp > before[name].stamp for name, title in after.items())
    assert spaces(settings, TITLES)[-1] == ("new", True)
    assert spaces(settings, TITLES).count(("new", False)) == 1


@pytest.mark.usefixtures("small_batches")
def test_another_encoder_after_an_interrupted_run_begins_anew(settings: Settings) -> None:
    assert interrupted(settings, NEW, 6)
    middle = newest(settings, ACTIVITY)
    plan = make_plan(settings.kafka_config(), space_of(OLD))
    assert plan == Plan(plan.offsets if plan else frozenset(), TITLES_WRITTEN, begins=True)
    assert not interrupted(settings, OLD, 100)
    after = newest(settings, ACTIVITY)
    assert {title.encoder for title in after.values()} == {"old"}
    assert all(after[name].stamp > middle[name].stamp for name in after)  # else the learner would skip the record


def test_titles_of_before_the_text_was_recorded_are_embedded_by_name_and_genres() -> None:
    texts: list[str] = []

    def encode(given: Any) -> Any:
        texts.extend(given)
        return np.ones((len(given), 2), np.float32)

    (record,) = run_flow(OLD, launch("1", name="Alien", genres=["Horror"], overview="In space.")).titles.all()
    title = decode_catalog_title(record.value)
    assert isinstance(title, CatalogTitle)
    embedded_again([title, structs.replace(title, text="")], TitleEmbedder(TextEncoder("new", 2, encode)))
    assert texts == ["Alien. Horror. In space.", "Alien. Horror"]


def test_encoder_is_announced_if_there_are_no_titles(new_kafka: dict[str, str]) -> None:
    write_records(KafkaSink(new_kafka), [space_records(space_of(OLD))[TITLES]])
    assert make_plan(new_kafka, space_of(OLD)) is None
    assert make_plan(new_kafka, space_of(NEW)) == Plan(frozenset(), 0, begins=True)


def test_topic_without_announcement_needs_no_run_for_its_width(new_kafka: dict[str, str]) -> None:
    (record,) = run_flow(encoder("", 4), launch("1", name="x")).titles.all()
    write_records(KafkaSink(new_kafka), [record])
    assert make_plan(new_kafka, space_of(THIRD)) is None
    assert make_plan(new_kafka, space_of(NEW)) == Plan(frozenset({0}), 1, begins=True)


def test_running_flow_refuses_the_command(settings: Settings) -> None:
    lock = data_lock.hold_flow(settings.data_dir, "titles", 0)
    assert lock is not None
    with lock, pytest.raises(SettingsError, match="Stop it, run `premiere reembed`"):
        reembed(settings, print, NEW)
    assert spaces(settings, TITLES) == [("old", True)]


def test_failure_names_the_remedy(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = settings.model_copy(update={"redis_url": "redis://127.0.0.1:1/0"})
    with pytest.raises(PremiereError):
        reembed(gone, print, NEW)


def test_own_vectors_are_kept() -> None:
    vectors, own = VectorSpace("images", 3), np.array([0, 1, 0], "<f4").tobytes()
    messages = [
        launch("1", name="x", vector=[0, 2, 0], space="images"),
        launch("2", 1, vector=[0, 2, 0], space="images"),
    ]
    run = TitlesRun(OLD)
    run_main(run.flow(TestingSource([messages]), vectors=vectors))
    titles = [decode_catalog_title(record.value) for record in run.titles.all()]
    known = [title for title in titles if isinstance(title, CatalogTitle)]
    both, alone = embedded_again(known, TitleEmbedder(NEW, vectors))
    assert both.vector == alone.vector == own
    assert both.encoder == "new + images"
    np.testing.assert_allclose(
        np.frombuffer(both.semantic, "<f4"), np.array([6**-0.5] * 6 + [0, 1, 0]) / 2**0.5, rtol=1e-6
    )
    assert np.frombuffer(alone.semantic, "<f4").tolist() == [0.0] * 6 + [0, 1, 0]
    text, none = embedded_again(known, TitleEmbedder(NEW))
    assert (text.width, none.width) == (6, 0)
