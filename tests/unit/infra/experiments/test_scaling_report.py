"""The report of the scaling experiment: verdicts that follow from intervals, its numbers and its figure."""

from dataclasses import replace
from typing import Any, Final

import numpy as np
import pytest

from infra.data.simulate import simulate
from infra.experiments import scaling, scaling_report
from infra.experiments.backbone_ranks import FINAL_LISTS, ORDER_LABELS
from infra.experiments.scaling import NO_BACKBONE
from infra.experiments.scaling_report import DOES_NOT_PAY, FLAT, PAYS, SATURATES
from infra.experiments.verdicts import INCONCLUSIVE
from model.metrics.scaling_law import LAWS, Floats, fit_laws
from tests.support.evaluation import SETTINGS, SILENT, no_text
from tests.support.figures import axes_of, labeled_lines, unlabeled_lines
from tests.support.scaling import LINE, N, drawn


def order_result(p_S: Floats, users: int, noise: float) -> dict[str, Any]:
    """The result of one task in one order, for sizes s0 to s5."""
    names = [f"s{k}" for k in range(len(N))]
    points_S, p_DS = drawn(p_S, users, noise)
    return {"mrr": dict(zip(names, points_S.tolist(), strict=True)), "law": fit_laws(N, points_S, p_DS)}


SATURATING: Final = 0.3 - 0.2 * (N / N[0]) ** -0.6  # at s3, 1 % is 0.0029 and doubling gains 0.0043


@pytest.mark.parametrize(
    ("p_S", "users", "noise", "growth", "size", "saturation"),
    [
        (np.full(6, 0.3), 20_000, 0.02, DOES_NOT_PAY, "s0", None),
        (np.linspace(0.3, 0.29, 6), 20_000, 0.02, DOES_NOT_PAY, "s0", FLAT),
        (SATURATING, 20_000, 0.02, DOES_NOT_PAY, "s4", SATURATES),
        (LINE, 20_000, 0.01, PAYS, "s5", INCONCLUSIVE),
        (LINE, 20, 0.2, INCONCLUSIVE, "s5", INCONCLUSIVE),
    ],
    ids=["constant", "falling", "saturating", "log-linear", "few users"],
)
def test_verdicts_follow_from_intervals(
    p_S: Floats, users: int, noise: float, growth: str, size: str, saturation: str | None
) -> None:
    result = order_result(p_S, users, noise)
    verdict = scaling_report.growth_verdict(result)
    assert (verdict["verdict"], verdict["size"]) == (growth, size)
    assert saturation in (None, scaling_report.saturation_verdict(result))


def test_p0_above_1_is_called_an_artifact() -> None:
    result = {"mrr": {"s0": 0.9}, "law": {"p0": {"fit": 1.01, "low": 0.95, "high": 1.1}, "a": 0.3}}
    assert scaling_report.saturation_verdict(result) == SATURATES
    assert "artifact" in scaling_report.describe_saturation(result)


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    network = replace(SETTINGS.sequence.network, heads=1)
    settings = replace(SETTINGS, sequence=replace(SETTINGS.sequence, network=network))
    sizes = ("16x1", "4x1", "8x1", "12x2", "32x2")
    return scaling.report(simulate(24, 120, 640), no_text, settings, SILENT, sizes, seeds=1)


def test_lines_have_metrics_gains_and_verdicts(found: dict[str, Any]) -> None:
    text = "\n".join(scaling_report.lines(found))
    of = found["tasks"]["next event"][FINAL_LISTS]
    assert f"{of['mrr']['12x2']:.4f}" in text
    gain = of["gain_of_largest"]["16x1"]
    assert f"32x2 less 16x1 {gain['mean']:+.4f} [{gain['low']:+.4f}, {gain['high']:+.4f}]" in text
    assert f"32x2 less {NO_BACKBONE} " in text
    assert f"growing beyond {scaling_report.growth_verdict(of)['size']}" in text


def test_figure_has_points_both_laws_and_p0(found: dict[str, Any]) -> None:
    n_S = np.array([size["parameters"] for size in found["sizes"].values()], float)
    with axes_of(scaling_report.draw, found) as panels:
        for axes, (order, title) in zip(panels, ORDER_LABELS.items(), strict=True):
            marks, others, top = labeled_lines(axes), iter(unlabeled_lines(axes)), axes.get_ylim()[1]
            assert (axes.get_title(), axes.get_xscale()) == (title, "log")
            assert list(marks) == [f"{task} ({by_order['events']:,})" for task, by_order in found["tasks"].items()]
            for mark, by_order in zip(marks.values(), found["tasks"].values(), strict=True):
                mrr, p0 = by_order[order]["mrr"], by_order[order]["law"]["p0"]
                np.testing.assert_array_equal(mark, [n_S, [mrr[size] for size in found["sizes"]]])
                for fit in LAWS.values():
                    x, y = next(others)
                    assert (x[0], x[-1]) == pytest.approx((n_S[0], n_S[-1]))
                    assert y == pytest.approx(fit(n_S, mark[1][None]).at(np.array(x))[0])
                assert next(others)[1] == [p0["low"], top if p0["high"] is None else p0["high"]]
                assert next(others)[1] == [top if p0["fit"] is None else p0["fit"]]
                if NO_BACKBONE in mrr:
                    assert next(others)[1] == [mrr[NO_BACKBONE]]
            assert next(others, None) is None
        assert panels[0].get_ylabel() == f"MRR, {found['data']}"
