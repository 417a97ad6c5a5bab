"""Decides at each due checkpoint whether its model version may be announced, and whether the learner must go back.

A check fails if

1. a weight or a statistic of the model is not finite;
2. the prequential MRR of the last events is below that of the best baseline by more than the margin (paired);
3. the prequential MRR has fallen abruptly (`model.metrics.drift`), for example because the events are fake;
4. on the probes (`model.probes`), the model ranks the targets worse than the last version that passed (paired), or its
   lists no longer resemble those of that version.

After several failed checks in a row the learner returns to the last good checkpoint and reads the log from there
without training on the range that failed. Each return needs twice as many failed checks as the one before, until one
passes, so a long failure costs at most twice the reading. All decisions are a function of the log: the state is in the
checkpoint, and a check happens at a position that the log determines.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from model.learner import Learner
from model.metrics.drift import DriftDetector
from model.metrics.ranking import PrequentialMetrics
from model.probes import Probe, ProbeResult, new_probe, rank_probes
from model.signals.ranker import has_other_signals
from model.signals.table import SIGNALS
from model.state.stream_state import UserUpdate
from streaming.state.log_settings import GateSettings


class GoodPoint(NamedTuple):
    """A checkpoint that passed before the first failed check."""

    position: int  # next log offset
    step: int


class Verdict(NamedTuple):
    """The result of a check."""

    problems: tuple[str, ...] = ()  # empty: the version passes
    rollback_to: GoodPoint | None = None  # the versions announced since then must no longer be served
    return_to: GoodPoint | None = None  # the learner must continue from there

    @property
    def passed(self) -> bool:
        return not self.problems


class VersionGate:
    """The checks of one learner, and what they compare with."""

    def __init__(self, learner: Learner, rankings: Mapping[str, PrequentialMetrics], settings: GateSettings) -> None:
        self.learner, self.rankings, self.settings = learner, rankings, settings
        self.drift = DriftDetector(settings.drift)
        self.recent: dict[str, Probe] = {}  # the newest probe of each of the most recently active users
        self.probes: list[Probe] = []
        self.passed_results: list[ProbeResult] = []  # of the probes, by the last version that passed
        self.probe_age = 0  # checks since the probes were chosen
        self.failures = 0  # failed checks in a row
        self.patience = settings.failures  # failed checks in a row after which the learner returns
        self.failing_since: int | None = None  # log time of the first of them, ms
        self.last_good: GoodPoint | None = None
        self.passed_step = -1  # step of the last version that passed and was not rolled back

    def add_updates(self, updates: Sequence[UserUpdate]) -> None:
        """Take the newest events of these users as probes."""
        if not self.settings.enabled:
            return
        stream_state = self.learner.stream_state
        for update in updates[-self.settings.probes :]:
            known = [i for i in update.new if update.titles[i] in stream_state.catalog.rows]
            if known:
                self.recent.pop(update.user, None)
                self.recent[update.user] = new_probe(update, max(known), stream_state.settings.history)
        for user in list(self.recent)[: -self.settings.probes]:
            del self.recent[user]

    def add_rank(self, rank: float) -> None:
        """Take the prequential rank of one event."""
        self.drift.add([1 / rank])

    def check(self, point: GoodPoint, now: int) -> Verdict:
        """Check the present state, which ends at `point`; `now` is the log time in ms."""
        if not self.settings.enabled:
            return Verdict()
        if self.failing_ms(now) > self.settings.accept_ms:
            self._accept()
        problems, results = self._problems()
        if not problems:
            self._pass(point, results)
            return Verdict()
        self.failures += 1
        self.failing_since = now if self.failing_since is None else self.failing_since
        rollback_to = None
        if self.drift.is_alarm and self.last_good is not None and self.passed_step > self.last_good.step:
            rollback_to, self.passed_step = self.last_good, self.last_good.step
        must_return = self.last_good is not None and self.failures >= self.patience
        return Verdict(tuple(problems), rollback_to, self.last_good if must_return else None)

    def _problems(self) -> tuple[list[str], list[ProbeResult]]:
        """What is wrong with the present state, and its results on the probes."""
        if not self.learner.served_pipeline.is_finite():
            return ["a weight is not finite"], []
        results = rank_probes(self.learner, self.probes[self._half()])
        return self._baseline_problems() + self._probe_problems(results), results

    def _half(self) -> slice:
        """The probes of this check."""
        return slice(self.probe_age % 2, None, 2)

    def _baseline_problems(self) -> list[str]:
        problems = ["the prequential MRR has fallen"] if self.drift.is_alarm else []
        window = {name: one.recent_reciprocal_ranks(self.settings.window) for name, one in self.rankings.items()}
        full = window.pop("full")
        if len(full) < self.settings.min_events:
            return problems
        best = max(window.values(), key=lambda values: float(values.mean()))
        return problems + (["the MRR is below that of the best baseline"] if self._is_worse(full, best) else [])

    def _probe_problems(self, results: Sequence[ProbeResult]) -> list[str]:
        passed = self.passed_results[self._half()]
        pairs = [(a, b) for a, b in zip(passed, results, strict=True) if a.top and b.top]
        if len(pairs) < self.settings.min_probes:
            return []
        before, after = ([result.top for result in side] for side in zip(*pairs, strict=True))
        rank_before, rank_after = (np.array([1 / one.rank for one in side]) for side in zip(*pairs, strict=True))
        overlap = np.mean([len(set(a) & set(b)) / len(a) for a, b in zip(before, after, strict=True)])
        max_share = max(self.settings.max_top_share, self.settings.max_top_growth * _top_share(before))
        found = {
            "the probes are ranked worse than by the last version": self._is_worse(rank_after, rank_before),
            "the lists no longer resemble those of the last version": overlap < self.settings.min_overlap,
            "the lists have too few titles": _coverage(after) < self.settings.min_coverage * _coverage(before),
            "too many lists begin with the same title": _top_share(after) > max_share,
        }
        return [problem for problem, is_found in found.items() if is_found]

    def _is_worse(self, values: NDArray[np.float64], reference: NDArray[np.float64]) -> bool:
        """Whether the mean of paired values is lower by more than the margin and several standard errors."""
        difference = values - reference
        error = difference.std() / math.sqrt(len(difference))
        allowed = self.settings.margin * reference.mean() + self.settings.standard_errors * error
        return bool(difference.mean() < -allowed)

    def _pass(self, point: GoodPoint, results: list[ProbeResult]) -> None:
        self.failures, self.failing_since, self.patience = 0, None, self.settings.failures
        self.passed_step = point.step
        if not self.drift.is_suspect:
            self.last_good = point
        self.passed_results[self._half()] = results
        self.probe_age += 1
        if self.probe_age < self.settings.probe_checks and len(self.probes) == self.settings.probes:
            return
        self.probe_age, self.probes = 0, list(self.recent.values())
        self.passed_results = rank_probes(self.learner, self.probes)

    def _accept(self) -> None:
        """Take the present level as the norm."""
        self.drift.reset()
        self.probes, self.passed_results = [], []
        self.failing_since, self.failures, self.patience = None, 0, self.settings.failures

    def restart(self) -> None:
        """Compare with no earlier version and return to none: a part of the model has started again."""
        self._accept()
        self.last_good = None

    def failing_ms(self, now: int) -> int:
        """Log time since the first of the last failed checks; 0 if the last check passed."""
        return 0 if self.failing_since is None else now - self.failing_since

    def returned(self, outcome: Mapping[str, Any]) -> None:
        """Continue behind a skipped range with the `outcome` of the failed checks: the memory of them must remain."""
        self.drift.load_state_dict(outcome["drift"])
        self.failures, self.patience = 0, 2 * outcome["patience"]
        self.failing_since, self.passed_step = outcome["failing_since"], outcome["passed_step"]

    def outcome(self) -> dict[str, Any]:
        """What `returned` needs."""
        names = "patience", "failing_since", "passed_step"
        return {"drift": self.drift.state_dict(), **{name: getattr(self, name) for name in names}}

    def erase_user(self, user: str) -> None:
        """Drop the user's probes."""
        self.recent.pop(user, None)
        kept = [n for n, probe in enumerate(self.probes) if probe.user != user]
        self.probes = [self.probes[n] for n in kept]
        self.passed_results = [self.passed_results[n] for n in kept]

    def state_dict(self) -> dict[str, Any]:
        return {
            **self.outcome(),
            "recent": [list(probe) for probe in self.recent.values()],
            "probes": [list(probe) for probe in self.probes],
            "passed_results": [list(result) for result in self.passed_results],
            "probe_age": self.probe_age,
            "failures": self.failures,
            "last_good": None if self.last_good is None else list(self.last_good),
            "signals": list(SIGNALS),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.drift.load_state_dict(state["drift"])
        self.recent = {probe.user: probe for probe in (Probe(*fields) for fields in state["recent"])}
        self.probes = [Probe(*fields) for fields in state["probes"]]
        self.passed_results = [ProbeResult(*fields) for fields in state["passed_results"]]
        self.last_good = None if state["last_good"] is None else GoodPoint(*state["last_good"])
        for name in ("patience", "failing_since", "passed_step", "probe_age", "failures"):
            setattr(self, name, state[name])
        if has_other_signals(state):
            self.restart()


def _coverage(lists: Sequence[Sequence[str]]) -> int:
    return len({title for titles in lists for title in titles})


def _top_share(lists: Sequence[Sequence[str]]) -> float:
    """The share of the lists that begin with the most frequent first title."""
    first = [titles[0] for titles in lists]
    return max(map(first.count, first)) / len(first)
