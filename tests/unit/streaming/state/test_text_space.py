"""The encoder of the titles in the topics, and the refusal of another one."""

import numpy as np
import pytest

from features.text_encoders import TextEncoder
from streaming.kafka.sink import KafkaSink
from streaming.kafka.source import read_all
from streaming.records import CatalogTitle, TextSpace, decode_catalog_title, decode_log
from streaming.state.text_space import (
    OtherEncoderError,
    check_encoder,
    newest_title_record,
    space_records,
    start_text_space,
    write_records,
)
from streaming.topics import ACTIVITY, TITLES
from tests.support.titles import encoder, launch, run_flow, space_of

NEW, OTHER, WIDER = encoder("new", 4), encoder("other", 4), encoder("new", 5)


def title(by: TextEncoder, **fields: bool) -> CatalogTitle:
    (record,) = run_flow(by, launch("1", name="x")).titles.all()
    found = decode_catalog_title(record.value)
    assert isinstance(found, CatalogTitle)
    return CatalogTitle(**{name: getattr(found, name) for name in found.__struct_fields__} | fields)


@pytest.mark.parametrize(
    "newest",
    [None, TextSpace(encoder="new", width=4), title(NEW), title(encoder("", 4)), title(encoder("new", 4, np.zeros))],
)
def test_present_encoder_is_accepted(newest: CatalogTitle | TextSpace | None) -> None:
    check_encoder(newest, space_of(NEW))


@pytest.mark.parametrize(
    "newest",
    [
        TextSpace(encoder="other", width=4),
        TextSpace(encoder="new", width=5),
        TextSpace(encoder="new", width=4, complete=False),
        title(OTHER),
        title(WIDER),
        title(NEW, reembedded=True),
        title(encoder("", 5)),
    ],
)
def test_other_encoder_and_interrupted_change_are_refused_with_the_remedy(newest: CatalogTitle | TextSpace) -> None:
    with pytest.raises(OtherEncoderError, match="premiere reembed"):
        check_encoder(newest, space_of(NEW))


def test_encoder_is_announced_before_the_first_title_and_the_newest_record_is_found(new_kafka: dict[str, str]) -> None:
    sink = KafkaSink(new_kafka)
    assert newest_title_record(new_kafka) is None
    start_text_space(new_kafka, space_of(NEW), sink)
    space = TextSpace(encoder="new", width=4)
    assert newest_title_record(new_kafka) == space
    titles = run_flow(NEW, *(launch(str(n), n, name="x") for n in range(3))).titles.all()
    write_records(sink, titles)
    write_records(sink, [titles[0]._replace(value=b"invalid")] * 20)
    newest = newest_title_record(new_kafka)
    assert isinstance(newest, CatalogTitle)
    assert newest.title == "2"
    start_text_space(new_kafka, space_of(NEW), sink)
    assert [decode_log(m.value or b"") for m in read_all(new_kafka, ACTIVITY)] == [space, space]
    assert decode_catalog_title(next(read_all(new_kafka, TITLES)).value or b"") == space
    with pytest.raises(OtherEncoderError):
        start_text_space(new_kafka, space_of(OTHER), sink)
    start_text_space(new_kafka, space_of(NEW), sink)  # nothing was written with the other one


def test_space_records_go_to_both_topics() -> None:
    records = space_records(space_of(NEW), complete=False)
    assert {topic: decode_log(one.value) for topic, one in records.items()} == dict.fromkeys(
        (TITLES, ACTIVITY), TextSpace(encoder="new", width=4, complete=False)
    )
