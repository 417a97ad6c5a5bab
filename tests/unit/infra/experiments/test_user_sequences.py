"""User sequences: order and ties, which rows are interactions, and texts."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pytest

from infra.data.datasets import load
from infra.data.tables import DataError
from infra.experiments import user_sequences
from tests.support.evaluation import checkerboard


def write_csv(folder: Path, rows: Sequence[dict[str, object]]) -> Path:
    pd.DataFrame(rows).to_csv(folder / "e.csv", index=False)
    return folder / "e.csv"


def test_ties_keep_file_order_and_repeated_titles_count_once(tmp_path: Path) -> None:
    rows = [("u", "c", 20), ("u", "b", 10), ("v", "b", 5), ("u", "a", 20), ("u", "b", 30)]
    file = write_csv(tmp_path, [{"user": u, "item": i, "ts": t} for u, i, t in rows])
    found = user_sequences.load(file)
    named = {user: [found.titles[v] for v in title_L] for user, title_L in found.sequences.items()}
    assert named == {"u": ["b", "c", "a"], "v": ["b"]}
    assert (len(found), found.name, found.texts) == (4, "e", ["", "", ""])


def test_pos_column_gives_the_order(tmp_path: Path) -> None:
    rows = [("u", "c", 2), ("v", "b", 0), ("u", "a", 0), ("u", "b", 1)]
    file = write_csv(tmp_path, [{"user": u, "item": i, "pos": p} for u, i, p in rows])
    titles = tmp_path / "t.csv"
    pd.DataFrame({"item": ["a", "c"], "title": ["Alpha", "Gamma"], "genres": ["War", ""]}).to_csv(titles, index=False)
    found = user_sequences.load(file, titles)
    assert [found.titles[v] for v in found.sequences["u"]] == ["a", "b", "c"]
    assert dict(zip(found.titles, found.texts, strict=True)) == {"a": "Alpha. War", "b": "", "c": "Gamma"}


def test_impressions_and_dislikes_are_not_interactions(tmp_path: Path) -> None:
    rows = [("u", "a", 1, "impression"), ("u", "b", 2, "click"), ("u", "c", 3, "dislike"), ("u", "a", 4, "play")]
    rows += [("v", "d", 5, "impression"), ("u", "e", 6, "play")]
    file = write_csv(tmp_path, [{"user": u, "item": i, "ts": t, "action": a} for u, i, t, a in rows])
    found = user_sequences.load(file)
    assert {u: [found.titles[v] for v in title_L] for u, title_L in found.sequences.items()} == {"u": ["b", "a", "e"]}
    assert len(user_sequences.load(file, limit=2)) == 2
    from_stream = user_sequences.from_dataset(load(file))
    assert {u: [from_stream.titles[v] for v in title_L] for u, title_L in from_stream.sequences.items()} == {
        "u": ["b", "a", "e"]
    }


def test_row_without_position_or_time_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="pos"):
        user_sequences.load(
            write_csv(tmp_path, [{"user": "u", "item": "a", "pos": 1}, {"user": "u", "item": "b", "pos": None}])
        )
    with pytest.raises(DataError, match="ts"):
        user_sequences.load(write_csv(tmp_path, [{"user": "u", "item": "a"}]))


def test_sequences_of_a_dataset_leave_out_titles_without_events() -> None:
    data = checkerboard(320).slice(0, 100)
    found = user_sequences.from_dataset(data)
    assert set(found.titles) == {data.titles[v] for v in data.title} < set(data.titles)
    for user, title_L in found.sequences.items():
        own = [data.titles[v] for v, u in zip(data.title, data.user, strict=True) if data.users[u] == user]
        assert [found.titles[v] for v in title_L] == own
    assert len(found.texts) == len(found.titles)


def test_row_number_counts_the_rows_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "e.csv"
    path.write_text("user,item,ts,action\nu,a,1,impression\nu,b,2,play\nu,c,x,play\n")
    with pytest.raises(DataError, match="has 'x' in row 3"):
        user_sequences.load(path)
