"""The goals of the abuse experiment and its report."""

from infra.experiments import abuse, abuse_attacks, abuse_flows
from infra.experiments.abuse import EVERY_EVENT, goals, lines
from model.state.event_evidence import EvidenceRatio


def means() -> dict[str, dict[str, float]]:
    """Results that reach every goal."""
    results: dict[str, dict[str, float]] = {f"100 fake events, {kind}": {"top10": 0.05} for kind in abuse_attacks.KINDS}
    results |= {name: {"displaced": 1.0} for name in abuse_attacks.LAUNCH_FLOODS}
    results["invented ids"] = {"evicted_launched": 0}
    results["one-event users"] = {"evicted_users": 0}
    results |= {name: {"crashes": 0, "grown_mib": abuse.MAX_GROWTH_MIB} for name in abuse_flows.FLOODS}
    results[abuse_flows.AFTER_FLOODS] = {"lost": 0}
    for count in abuse.PREMIERE_EVENTS:
        results[f"premiere, {count} first events"] = {"lists": 9, "lists_without_limits": 10}
    return results


def test_each_goal_is_missed_beyond_its_limit() -> None:
    assert all(goal["passed"] for goal in goals(means()))
    worse: dict[str, dict[str, float]] = {
        "100 fake events, one user repeatedly": {"top10": 0.06},
        "64 invented launches, distinct texts": {"displaced": 1.1},
        "64 invented launches, near-identical texts, one per minute": {"displaced": 1.1},
        "invented ids": {"evicted_launched": 1.0},
        "one-event users": {"evicted_users": 1.0},
        abuse_flows.ERASURE_FLOOD: {"crashes": 1, "grown_mib": 0},
        abuse_flows.HUGE_TEXT_FLOOD: {"crashes": 0, "grown_mib": abuse.MAX_GROWTH_MIB + 1},
        abuse_flows.AFTER_FLOODS: {"lost": 1},
        "premiere, 100 first events": {"lists": 8, "lists_without_limits": 10},
    }
    for name, cells in worse.items():
        assert [goal["passed"] for goal in goals(means() | {name: cells})].count(False) == 1


def test_report_shows_each_attack_with_the_figures_before_limits() -> None:
    attacks = {name: {**cells, "before": abuse.BEFORE.get(name, "-")} for name, cells in means().items()}
    result = {"users": 300, "titles": 400, "events": 5_000, "seeds": [0], "attacks": attacks, "goals": goals(means())}
    text = "\n".join(lines(result))
    assert "before there were limits: 100 % of lists, 47 % of top tens" in text
    assert "MISSED" not in text


def test_reference_counts_every_event_in_full() -> None:
    ratio = EvidenceRatio(EVERY_EVENT)
    for user_events, repeat in ((0, 1), (0, 9), (50, 1)):
        evidence = ratio.weigh(user_events, repeat)
        assert (evidence.established, evidence.new) == (1, 0)
