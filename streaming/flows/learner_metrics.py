"""The metrics of the learner: its totals, its prequential evaluation and the checks of its versions."""

from typing import Final

from prometheus_client import Counter, Gauge

from model.metrics.baselines import RECENT_WINDOWS
from model.metrics.ranking import RANKING_METRICS, SLICES
from streaming.state.log_learner import LogLearner

LEARNED_EVENTS: Final = Counter("premiere_learned_events_total", "Events learned, without duplicates.")
POSITION: Final = Gauge("premiere_learner_position", "Next offset of the learner log that the weights do not include.")
DUPLICATES: Final = Counter(
    "premiere_learner_duplicates_total", "Duplicate events in the learner log, which are not learned again."
)
UNKNOWN_TITLE_EVENTS: Final = Counter(
    "premiere_learner_unknown_title_events_total",
    "Events whose title was not a candidate; they score rank infinity.",
)
WAITING_TITLE_EVENTS: Final = Counter(
    "premiere_learner_waiting_title_events_total", "Events on titles that waited for their launch; none is learned."
)
WAITING_TITLES: Final = Gauge(
    "premiere_learner_waiting_titles", "Unlaunched titles that wait for their launch or for events of enough users."
)
TITLE_EVICTIONS: Final = Counter("premiere_learner_title_evictions_total", "Titles evicted at the catalog limit.")
SKIPPED_STEPS: Final = Counter(
    "premiere_learner_skipped_steps_total", "Training steps skipped because of a non-finite or huge gradient.", ["part"]
)
REPLAY_RATIO: Final = Gauge(
    "premiere_learner_replay_ratio", "Experience replay relative to its normal amount; below 1 while shedding load."
)
EVAL_SAMPLE_RATIO: Final = Gauge(
    "premiere_learner_eval_sample_ratio", "Fraction of the events that are evaluated; below 1 while shedding load."
)
EVENT_RATE: Final = Gauge("premiere_learner_events_per_second", "Events learned per second of log time.")
LOSS: Final = Gauge("premiere_learner_loss", "Loss of the last micro-batch, in nats.", ["part"])
PREQUENTIAL_SUM: Final = Counter(
    "premiere_prequential_sum_total", "Sum of a ranking metric over the scored events.", ["variant", "metric", "slice"]
)
PREQUENTIAL_SCORED: Final = Counter("premiere_prequential_scored_total", "Events scored by slice.", ["slice"])
RECENT_MRR: Final = Gauge(
    "premiere_prequential_recent_mrr", "MRR over the most recent scored events.", ["variant", "slice"]
)
RECENT_WINDOW_S: Final = Gauge(
    "premiere_prequential_recent_window_seconds",
    "Window of the baseline `popularity_recent`: the best one of the previous scored events.",
)
LOST_RECORDS: Final = Counter(
    "premiere_learner_lost_records_total", "Log records that retention deleted before they were learned."
)
GATE_FAILURES: Final = Counter(
    "premiere_gate_failures_total", "Checks that a model version failed; it is not announced."
)
GATE_FAILING_S: Final = Gauge(
    "premiere_gate_failing_seconds", "Log time since versions fail their checks; 0 if they pass."
)
GATE_ROLLBACKS: Final = Counter(
    "premiere_gate_rollbacks_total", "Automatic rollbacks, because the versions in service had become worse."
)
GATE_RETURNS: Final = Counter(
    "premiere_gate_returns_total", "Returns of the learner to the last good checkpoint, which skip a range of the log."
)
CHECKPOINT_STEP: Final = Gauge("premiere_checkpoint_step", "Micro-batches learned by the newest complete checkpoint.")


class LearnerMetrics:
    """Exports a learner's totals as Prometheus counters, and its state as gauges.

    The learner keeps its totals in the checkpoint, and a counter only accepts increments. Each report therefore adds
    the difference to the last reported total. After a restart the first report adds the whole restored total, so the
    counter's value is the total over all restarts. Prometheus sees a restart as a counter reset: `increase()` over it
    counts the restored total once more.
    """

    def __init__(self, learner: LogLearner) -> None:
        self.learner = learner
        self._reported: dict[Counter, float] = {}

    def report_learned(self) -> None:
        """Report the number of learned events alone, which is cheap."""
        self._set_total(LEARNED_EVENTS, self.learner.learned)

    def report(self) -> None:
        """Report everything."""
        learner = self.learner
        self.report_learned()
        self._set_total(DUPLICATES, learner.duplicates)
        self._report_model()
        POSITION.set(learner.position)
        REPLAY_RATIO.set(learner.replay_ratio)
        EVAL_SAMPLE_RATIO.set(learner.eval_ratio)
        EVENT_RATE.set(learner.event_rate.per_second())
        GATE_FAILING_S.set(learner.gate.failing_ms(learner.clock.now) / 1000)
        for part, loss in learner.losses.items():
            LOSS.labels(part).set(loss)
        for variant, ranking in learner.evaluation.rankings.items():
            total, recent = ranking.sums(), ranking.recent()["mrr"]
            for m, metric in enumerate(RANKING_METRICS):
                for s, name in enumerate(SLICES):
                    self._set_total(PREQUENTIAL_SUM.labels(variant, metric, name), float(total[m, s]))
            for name in SLICES:
                value = recent[name]
                RECENT_MRR.labels(variant, name).set(float("nan") if value is None else value)
        RECENT_WINDOW_S.set(RECENT_WINDOWS[learner.evaluation.recent_window.name] / 1000)
        for name, count in learner.evaluation.rankings["full"].scored().items():
            self._set_total(PREQUENTIAL_SCORED.labels(name), count)

    def _report_model(self) -> None:
        """Report the counts that the model keeps itself."""
        stream_state, pipeline = self.learner.learner.stream_state, self.learner.learner.served_pipeline
        self._set_total(UNKNOWN_TITLE_EVENTS, self.learner.evaluation.unknown_title_events)
        self._set_total(WAITING_TITLE_EVENTS, stream_state.waiting_title_events)
        self._set_total(TITLE_EVICTIONS, stream_state.evicted_titles)
        WAITING_TITLES.set(len(stream_state.admission))
        self._set_total(SKIPPED_STEPS.labels("ranker"), pipeline.ranker.skipped_steps)
        if pipeline.sequence is not None:
            self._set_total(SKIPPED_STEPS.labels("backbone"), pipeline.sequence.optimizers.dense.skipped)

    def _set_total(self, counter: Counter, total: float) -> None:
        if (increase := total - self._reported.get(counter, 0.0)) > 0:
            counter.inc(increase)
            self._reported[counter] = total
