"""Other streams: the slice of globo, the synthetic times of ml-1m, and the throughput measurement."""

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from infra.data.datasets import Dataset
from infra.experiments import other_streams
from tests.support.evaluation import SETTINGS, SILENT, checkerboard, no_text


@pytest.fixture(scope="module")
def data() -> Dataset:
    return checkerboard(320)


def test_globo_starts_on_its_day_with_its_articles_only(tmp_path: Path) -> None:
    day = pd.Timestamp(other_streams.GLOBO_DAY).value // 10**6
    rows = [(1, 7, day - 5), (1, 8, day), (2, 8, day + 1500), (2, 9, day + 2000)]
    pd.DataFrame(rows, columns=["user", "item", "ts_ms"]).to_parquet(tmp_path / "clicks.parquet")
    clicks = other_streams.globo(tmp_path / "clicks.parquet", 2)
    assert clicks.titles == ["8"]
    assert clicks.ts.tolist() == [day, day + 1500]


def test_ml_1m_times_keep_user_order_and_end_at_the_last_time(tmp_path: Path) -> None:
    rows = [("1", str(item), pos, 10**9) for pos, item in enumerate([5, 3, 4])]
    rows += [("2", str(item), pos, 10**9 + 40) for pos, item in enumerate([4, 5])]
    pd.DataFrame(rows, columns=["user", "item", "pos", "user_last_ts"]).to_parquet(tmp_path / "ml1m_ordered.parquet")
    (tmp_path / "movies.dat").write_text("3::Eén::Drama|War\n4::Two::Comedy\n5::Three::Drama\n", encoding="latin-1")
    (tmp_path / "overviews.csv").write_text("item,year,overview,release_date\n3,1990.0,words,1990-05-01\n")
    movies = other_streams.ml_1m(tmp_path)
    order = [(movies.event(k).user, movies.event(k).title, movies.event(k).ts // 1000 - 10**9) for k in range(5)]
    assert order == [("1", "5", -60), ("1", "3", -30), ("1", "4", 0), ("2", "4", 10), ("2", "5", 40)]
    launch = next(launch for launch in movies.launches if launch.title == "3")
    assert (launch.genres, launch.year, launch.overview) == (["Drama", "War"], 1990, "words")


def test_throughput_is_sampled_in_every_mode(data: Dataset) -> None:
    samples = other_streams.throughput(data, no_text, SETTINGS, 1e-6, SILENT)
    assert list(samples) == ["default", "no replay", other_streams.KEEPING_UP]
    all_samples = [sample for mode_samples in samples.values() for sample in mode_samples]
    assert [sample["events"] for sample in all_samples] == [64, 128, 320]  # the last micro-batch is large
    assert all(sample["events_per_s"] > 0 and sample["resident_mib"] > 0 for sample in all_samples)


def test_comparison_reports_the_gain_of_the_backbone(data: Dataset) -> None:
    result = other_streams.compare(data, no_text, replace(SETTINGS, repeats=True), SILENT)
    assert (result["events"], result["scored"], result["users"]) == (320, 256, 20)
    pair = result["gains"][0]
    assert (pair["variant"], pair["reference"]) == ("full", "no_backbone")
    difference = result["mrr"]["full"]["all"] - result["mrr"]["no_backbone"]["all"]
    assert pair["gain"]["all"]["mean"] == pytest.approx(difference)
