"""`premiere reembed`: embed every title again, by the text encoder of the settings.

The command takes the place of the flow `titles`, which must not run. It announces the encoder with a TextSpace, writes
each title of the topic `titles` again with its new embedding, and ends with a complete TextSpace. A title's new record
has the next stamp, so that every reader replaces the old one. Each batch goes to `titles` first, then to the learner
log and to Feast. An interrupted run is continued by the next one: it keeps the titles that `titles` has after the
announcement, except the last ones, as many as a batch, whose other records may be missing. These are written first, so
that no more titles than a batch are ever incomplete.
"""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from msgspec import structs
from redis.exceptions import RedisError

from features.text_encoders import TextEncoder, launch_text
from infra.errors import InUseError, ServiceError
from infra.local import data_lock
from infra.progress import Reporter
from infra.run.owner import own_worker
from infra.run.runner import configured_encoder, feast_folder, open_feature_store, use_transactions
from infra.run.workers import SINGLE_WORKER
from infra.settings import Settings
from infra.topics import log_identity
from model.state.embedding_space import EmbeddingSpace
from streaming.errors import StreamError
from streaming.flows.title_output import catalog_record, log_record, title_row
from streaming.kafka.ownership import Owner
from streaming.kafka.sink import KafkaSink, Outgoing
from streaming.kafka.source import read_all
from streaming.records import DECODE_ERRORS, CatalogTitle, TextSpace, decode_catalog_title
from streaming.state.text_space import space_records
from streaming.state.title_embedder import TitleEmbedder, VectorSpace
from streaming.state.title_metadata import has_other_text
from streaming.topics import ACTIVITY, TITLES

if TYPE_CHECKING:
    from feast import FeatureStore

FLOW: Final = "titles"
STEPS: Final = {TITLES: "titles", ACTIVITY: "activity"}  # of the flow, by topic
BATCH_TITLES: Final = 256  # that are embedded at a time, and repeated after an interruption
OFFLINE_PART: Final = "reembed"  # of the offline log; the flow has others

PrintLine = Callable[[str], object]


class Plan(NamedTuple):
    """What must be written."""

    offsets: frozenset[int]  # of the newest records of the titles that must be embedded again
    titles: int
    begins: bool  # False: an interrupted run is continued
    incomplete: frozenset[int] = frozenset()  # of these offsets, those that the interrupted run wrote


def reembed(settings: Settings, print_line: PrintLine, encode: TextEncoder | None = None) -> None:
    """Embed every title again, by `encode` or the encoder of the settings.

    Raises PremiereError; the next run then continues.
    """
    config = settings.kafka_config()
    log_identity(config, [TITLES, ACTIVITY])  # the topics exist
    try:
        with _own_flow(settings) as owner:
            embedder = TitleEmbedder(encode or configured_encoder(settings), VectorSpace.parse(settings.title_vectors))
            plan = make_plan(config, embedder.space)
            if plan is None:
                print_line(f"All titles are embedded by {embedder.space.encoder} already.")
                return
            with _open_writer(settings, owner) as writer:
                write_titles(config, embedder, plan, writer)
    except (StreamError, RedisError, OSError) as error:
        raise ServiceError(f"{error} Run `premiere reembed` again: it continues where it stopped.") from error
    space = embedder.space.encoder
    print_line(f"{len(plan.offsets):,} of {plan.titles:,} titles were embedded by {space}. Start the flow titles.")


def make_plan(config: Mapping[str, str], space: EmbeddingSpace) -> Plan | None:
    """Read the topic `titles`; None if all its embeddings are of this space. Raises StreamError."""
    newest: dict[str, tuple[int, int]] = {}  # title -> stamp and offset of its newest record
    others, announced, last = set[str](), -1, None  # titles of other encoders; the newest TextSpace
    for offset, record in _records(config):
        if isinstance(record, TextSpace):
            announced, last = offset, record
        elif record.stamp >= newest.get(record.title, (0, 0))[0]:
            newest[record.title] = record.stamp, offset
            (others.add if has_other_text(record, space) else others.discard)(record.title)
    offsets = frozenset(offset for _, offset in newest.values())
    is_announced = last is None or space.contains(last.encoder, last.width)
    if last is not None and is_announced and not last.complete:
        written = sorted(offset for offset in offsets if offset > announced)
        done, incomplete = written[:-BATCH_TITLES], written[-BATCH_TITLES:]
        return Plan(offsets - set(done), len(offsets), False, frozenset(incomplete))
    return None if is_announced and not others else Plan(offsets, len(offsets), begins=True)


class Writer(NamedTuple):
    """Writes records of one topic, and rows of titles."""

    records: Callable[[list[Outgoing]], None]
    rows: Callable[[list[dict[str, Any]]], None]


def write_titles(config: Mapping[str, str], embedder: TitleEmbedder, plan: Plan, writer: Writer) -> None:
    """Announce the space, and write the titles of the plan. Raises StreamError, redis errors."""
    announcement = space_records(embedder.space, complete=False)
    if plan.begins:
        writer.records([announcement[TITLES]])
    writer.records([announcement[ACTIVITY]])
    titles = chain.from_iterable(_at(config, part) for part in (plan.incomplete, plan.offsets - plan.incomplete))
    with Reporter().bar(len(plan.offsets)) as bar:
        done = 0
        for batch in _batches(titles):
            made = embedded_again(batch, embedder)
            writer.records([catalog_record(title) for title in made])
            writer.records([log_record(title) for title in made])
            writer.rows([title_row(title) for title in made])
            done += len(batch)
            bar(done)
    writer.records([space_records(embedder.space)[TITLES]])


def _at(config: Mapping[str, str], offsets: frozenset[int]) -> Iterator[CatalogTitle]:
    """The titles at these offsets of the topic `titles`, in their order."""
    due = (record for offset, record in _records(config, min(offsets, default=0)) if offset in offsets)
    return islice((record for record in due if isinstance(record, CatalogTitle)), len(offsets))


def _batches(titles: Iterator[CatalogTitle]) -> Iterator[list[CatalogTitle]]:
    while batch := list(islice(titles, BATCH_TITLES)):
        yield batch


def embedded_again(titles: list[CatalogTitle], embedder: TitleEmbedder) -> list[CatalogTitle]:
    """The titles with new embeddings and the next stamps.

    The text of a record from before texts were recorded is its name and genres.
    """
    texts = [title.text or launch_text(title.name, title.genres) for title in titles]
    embeddings = embedder.embed(texts, [(title.space, title.vector) for title in titles])
    return [
        structs.replace(
            title, stamp=title.stamp + 1, semantic=embedding, encoder=embedder.space.encoder, reembedded=True
        )
        for title, embedding in zip(titles, embeddings, strict=True)
    ]


def _records(config: Mapping[str, str], start: int = 0) -> Iterator[tuple[int, CatalogTitle | TextSpace]]:
    """The valid records of the topic `titles` with their offsets, from an offset on."""
    for message in read_all(config, TITLES, {0: start} if start else None):
        try:
            yield message.offset, decode_catalog_title(message.value or b"")
        except DECODE_ERRORS:
            continue


@contextmanager
def _own_flow(settings: Settings) -> Iterator[Owner]:
    """Take the place of all workers of the flow. Raises SettingsError, StreamError if one runs."""
    with ExitStack() as stack:
        try:
            locks = [data_lock.hold_flow(settings.data_dir, FLOW, worker) for worker in range(settings.titles_workers)]
        except InUseError:
            raise InUseError("The flow titles runs. Stop it, run `premiere reembed`, and start it again.") from None
        for lock in filter(None, locks):
            stack.enter_context(lock)
        yield stack.enter_context(
            own_worker(settings, FLOW, SINGLE_WORKER, threading.Event(), locked=None not in locks)
        )


@contextmanager
def _open_writer(settings: Settings, owner: Owner) -> Iterator[Writer]:
    """Write to Kafka and to Feast. Raises SettingsError."""
    from features.definitions import TITLE_SEMANTICS_SCHEMA
    from features.store import offline_folder, write_title_semantics
    from streaming.stores.parquet_log import ParquetSink

    store: FeatureStore = open_feature_store(settings)
    folder: Path = offline_folder(feast_folder(settings), "title_semantics")
    sink = KafkaSink(settings.kafka_config(), owner=owner, transactional=use_transactions(settings))
    with ExitStack() as stack:
        # The steps of the flow: the producers of an earlier process, which may have stalled, are fenced.
        kafka = {topic: sink.build_part(f"{FLOW}.{step}", "000", None) for topic, step in STEPS.items()}
        for part in kafka.values():
            stack.callback(part.close)
        offline = ParquetSink(folder, 1, TITLE_SEMANTICS_SCHEMA).build_part("offline", OFFLINE_PART, None)
        stack.callback(offline.close)

        def write_records(records: list[Outgoing]) -> None:
            kafka[records[0].topic].write_batch([records])
            kafka[records[0].topic].snapshot()

        def write_rows(rows: list[dict[str, Any]]) -> None:
            offline.write_batch([rows])
            offline.snapshot()
            offline.write_batch([[]])  # publishes them
            owner.check()
            write_title_semantics(store, rows)

        yield Writer(write_records, write_rows)
