"""The figures are valid, show their labels, and are the same bytes for the same numbers."""

from pathlib import Path
from xml.etree import ElementTree

import matplotlib.pyplot as plt
import pytest

from infra.charts import COLORS, consumer_lag, figure, latency_histogram, legend_below, mrr_curves
from infra.demo.screen import LABELS
from infra.monitor.scrape import Histogram

INFINITY = float("inf")
CURVES = {"full": ([0.0, 10.0], [0.1, 0.2]), "popularity": ([0.0, 10.0], [0.05, 0.05])}
SVG_TEXT = "{http://www.w3.org/2000/svg}text"


def texts(svg: str) -> set[str]:
    """The texts of a figure; raises ParseError if it is not well-formed."""
    return {"".join(node.itertext()).strip() for node in ElementTree.fromstring(svg).iter(SVG_TEXT)}


def test_every_variant_of_the_demo_has_a_color() -> None:
    assert {*LABELS} <= {*COLORS}


def test_mrr_curves_show_only_the_given_variants() -> None:
    svg = mrr_curves(CURVES, LABELS)
    assert {LABELS["full"], LABELS["popularity"], "live events", "MRR"} <= texts(svg)
    assert LABELS["cooccurrence"] not in texts(svg)
    assert COLORS["full"] in svg
    assert COLORS["cooccurrence"] not in svg
    assert mrr_curves(CURVES, LABELS) == svg


@pytest.mark.parametrize("cumulative", [(50.0, 100.0, 100.0), (0.0, 0.0, 7.0)], ids=["bounded", "unbounded bucket"])
def test_latency_histogram_labels_its_axis_in_units(cumulative: tuple[float, ...]) -> None:
    svg = latency_histogram({"event": Histogram((0.1, 1.0, INFINITY), cumulative)}, {"event": "event to list"})
    assert "event to list" in texts(svg)
    assert any(text.endswith(" s") for text in texts(svg))


def test_consumer_lag_shows_groups_and_phases() -> None:
    svg = consumer_lag({"learn < activity": ([0.0, 1.0, 2.0], [0.0, 900.0, 5.0])}, [("backlog", 0.0), ("live", 1.0)])
    assert {"learn < activity", "backlog", "live"} <= texts(svg)


def test_labels_of_short_phases_do_not_overlap() -> None:
    line = ([0.0, 500.0], [0.0, 0.0])
    svg = consumer_lag({"learn < activity": line}, [("titles", 0.0), ("backlog", 10.0), ("live", 90.0)])
    nodes = ElementTree.fromstring(svg).iter(SVG_TEXT)
    heights = {"".join(node.itertext()).strip(): node.attrib.get("y") for node in nodes}
    assert heights["titles"] == heights["live"] != heights["backlog"]


def test_figure_is_saved_as_png_and_closed(tmp_path: Path) -> None:
    before = plt.get_fignums()
    for name in ("one.png", "same.png"):
        with figure(tmp_path / name, (4, 3), rows=2) as (upper, lower):
            upper.plot([1, 2], label="a")
            lower.plot([1, 2], label="b")
            legend_below([upper, lower])
            assert [text.get_text() for text in upper.figure.legends[0].texts] == ["a", "b"]
    assert plt.get_fignums() == before
    one, same = ((tmp_path / name).read_bytes() for name in ("one.png", "same.png"))
    assert one.startswith(b"\x89PNG")
    assert one == same
