"""When the state of a title ends, its row is deleted from Feast's online store."""

import pytest
from bytewax.testing import TestingSource, run_main

from features.text_encoders import TextEncoder, load_encoder
from streaming.state.expiry import DAY_MS
from tests.support.titles import NOW, TitlesRun, launch


@pytest.fixture(scope="module")
def encode() -> TextEncoder:
    return load_encoder()


def test_row_of_an_ended_title_is_deleted_from_the_online_store_only(encode: TextEncoder) -> None:
    later = NOW + 40 * DAY_MS
    polls = [[launch("old", 0), launch("kept", 1)], [launch("new", 2)._replace(appended=later)], []]
    polls += [[launch("old", 3, name="Again")._replace(appended=later)]]
    run = TitlesRun(encode)
    run_main(run.flow(TestingSource(polls[:2]), lifetime_ms=30 * DAY_MS, clock=lambda: later / 1000))
    assert [row["title_id"] for row in run.offline.all()] == ["old", "kept", "new"]
    assert sorted(row["title_id"] for row in run.online.all() if "name" not in row) == ["kept", "old"]
    assert [row["title_id"] for row in run.online.all() if "name" in row] == ["old", "kept", "new"]
    run = TitlesRun(encode)
    run_main(run.flow(TestingSource(polls), lifetime_ms=30 * DAY_MS, clock=lambda: later / 1000))
    of_old = [row.get("name") for row in run.online.all() if row["title_id"] == "old"]
    assert of_old == ["", None, "Again"]  # written, deleted, written


def test_too_many_titles_have_no_more_rows_than_the_limit(encode: TextEncoder) -> None:
    run = TitlesRun(encode)
    polls = [[launch(f"t{n}", n)] for n in range(30)]
    run_main(run.flow(TestingSource([*polls, [], []]), max_titles=10))
    rows: dict[str, bool] = {}
    for row in run.online.all():
        rows[row["title_id"]] = "name" in row
    assert len(rows) == 30
    assert sum(rows.values()) == 10
