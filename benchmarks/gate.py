"""Cost and effect of the version gate: its share of the learner's time, and how long faulty versions are in service.

A simulated stream of 50 events/s is learned with the gate and without. In the middle, a fault begins:

- not finite: a weight becomes NaN;
- destructive setting: all learning rates grow by a factor of 1,000;
- shuffled labels: for a while, each event has the title of another event;
- fake users: for a while, all events are of new users on random titles.

For each fault it prints how many seconds of log time a version with the fault was in service until the fault ended (for
the last two: one trained on faulty events), and the MRR of the events after that, beside the same without a gate.

    python -m benchmarks.gate            all faults
    python -m benchmarks.gate --cost     only the gate's share of the time
"""

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final, NamedTuple

import numpy as np
import torch

from benchmarks.runner import Row, make_row, save_results
from features.text_encoders import Encoder, launch_text, load_encoder
from infra.data.datasets import Dataset
from infra.data.simulate import simulate
from model.learner import Learner
from model.settings import LearnerSettings
from streaming.kafka.source import Message
from streaming.records import Activity, LogRecord, NewEvent, Title, action_code, to_msgpack
from streaming.state.log_learner import LogLearner
from streaming.state.log_settings import GateSettings, LogSettings
from streaming.state.version_gate import Verdict
from streaming.topics import ACTIVITY

EVENTS: Final = 4_500
FAULT_START, FAULT_STOP = 2_000, 3_500  # events
EVENTS_PER_SECOND: Final = 50.0
MAX_HISTORY: Final = 100  # events of an activity record
START_MS: Final = 1_735_689_600_000
FACTOR: Final = 1_000.0  # by which the destructive setting raises the learning rates


class Outcome(NamedTuple):
    """The result of a run with a fault."""

    faulty_s: float  # log time in which a version with faulty training was in service
    mrr_after: float  # of the events behind the fault
    returns: int


class FaultyLog(NamedTuple):
    """A learner log whose events in the offsets [start, stop) are faulty."""

    messages: list[Message]
    start: int
    stop: int


def messages_of(data: Dataset, encode: Encoder) -> list[Message]:
    """The learner log of a dataset, one activity record per event."""
    messages: list[Message] = []
    histories: dict[str, list[tuple[str, int, int]]] = {}

    def write(record: LogRecord, at: int) -> None:
        messages.append(Message(ACTIVITY, 0, len(messages), at, b"k", to_msgpack(record)))

    launches, launched = data.launches_with_events(), 0
    texts = encode([launch_text(one.name, one.genres, one.overview, one.text) for one in launches])
    for number in range(len(data)):
        event, at = data.event(number), START_MS + round(1000 * number / EVENTS_PER_SECOND)
        while launched < len(launches) and (launches[launched].ts or 0) < event.ts:
            one, vector = launches[launched], texts[launched]
            write(
                Title(
                    title=one.title, name=one.name, genres=list(one.genres), year=one.year, released=one.released,
                    launched=at, stamp=at * 1000 + launched, withdrawn=False, appended=at, offset=launched,
                    semantic=vector.astype("<f4").tobytes() if vector.any() else b"",
                ), at,
            )  # fmt: skip
            launched += 1
        history = histories.setdefault(event.user, [])
        history.append((event.title, event.ts, action_code(event)))
        titles, times, actions = (list(column) for column in zip(*history[-MAX_HISTORY:], strict=True))
        new = [NewEvent(len(times) - 1, 0, number, at)]
        write(Activity(user=event.user, count=len(history), titles=titles, times=times, actions=actions, new=new), at)
    return messages


def faulty_log(data: Dataset, encode: Encoder) -> FaultyLog:
    """The log of a dataset, with the offsets of its faulty events."""
    messages = messages_of(data, encode)
    events = [message.offset for message in messages if message.value and b"activity" in message.value[:64]]
    return FaultyLog(messages, events[FAULT_START], events[FAULT_STOP])


def shuffled(data: Dataset, seed: int = 0) -> Dataset:
    """The dataset with the titles of the faulty events permuted."""
    title = data.title.copy()
    title[FAULT_START:FAULT_STOP] = np.random.default_rng(seed).permutation(title[FAULT_START:FAULT_STOP])
    return replace(data, title=title)


def with_fake_users(data: Dataset, seed: int = 0) -> Dataset:
    """The dataset with the faulty events replaced by those of 200 new users on random known titles."""
    random, count = np.random.default_rng(seed), FAULT_STOP - FAULT_START
    user, title = data.user.copy(), data.title.copy()
    user[FAULT_START:FAULT_STOP] = len(data.users) + random.integers(0, 200, count)
    title[FAULT_START:FAULT_STOP] = random.choice(np.unique(title[:FAULT_START]), count)
    return replace(data, user=user, title=title, users=[*data.users, *(f"fake-{n}" for n in range(200))])


def make_not_finite(learner: LogLearner) -> None:
    """Put a NaN into a weight of the ranker."""
    with torch.no_grad():
        learner.learner.served_pipeline.ranker.linear_F[0] = np.nan


def raise_learning_rates(learner: LogLearner) -> None:
    """Multiply all learning rates of the ranker."""
    for group in learner.learner.served_pipeline.ranker.optimizer.param_groups:
        group["lr"] *= FACTOR


class Run:
    """A learner on a log, with the version that would be in service."""

    def __init__(self, messages: Sequence[Message], has_gate: bool) -> None:
        settings = LogSettings(gate=GateSettings(enabled=has_gate))
        self.messages, self.learner = messages, LogLearner(Learner(LearnerSettings()), settings)
        self.faulty = False  # whether the learner's state is affected by the fault
        self.served_faulty = False  # the same of the version in service
        self.states: dict[
            int, tuple[dict[str, Any], bool]
        ] = {}  # the last good state and whether it is faulty, by step
        self.returns = 0
        self.cpu_s = self.checks_cpu_s = 0.0  # of everything, and of the checks
        self.delays_s: list[float] = []  # by check

    def feed(self, message: Message) -> None:
        """Learn a message; serve the version that passes, and return if the gate demands it."""
        self.learner.gate.check = self._timed(self.learner.gate.check)  # type: ignore[method-assign]
        began = time.process_time()
        is_due = self.learner.feed(message)
        self.cpu_s += time.process_time() - began
        del self.learner.gate.check
        if is_due:
            self._apply(self.learner.verdict)

    def _timed(self, check: Callable[..., Verdict]) -> Callable[..., Verdict]:
        def timed(*arguments: Any) -> Verdict:
            began, began_cpu = time.perf_counter(), time.process_time()
            verdict = check(*arguments)
            self.delays_s.append(time.perf_counter() - began)
            self.checks_cpu_s += time.process_time() - began_cpu
            return verdict

        return timed

    def _apply(self, verdict: Verdict) -> None:
        last_good, learner = self.learner.gate.last_good, self.learner
        if verdict.passed:
            self.served_faulty = self.faulty
            if last_good is not None and last_good.step == learner.batches:
                self.states = {learner.batches: (learner.state_dict(), self.faulty)}
        if verdict.rollback_to is not None:
            self.served_faulty = self.states[verdict.rollback_to.step][1]
        if verdict.return_to is not None:
            fed, self.returns = learner.next_offset, self.returns + 1
            state, self.faulty = self.states[verdict.return_to.step]
            learner.return_to(state)
            for message in self.messages[learner.position : fed]:
                learner.feed(message)


def run_fault(log: FaultyLog, has_gate: bool, breaks: Callable[[LogLearner], None] | None = None) -> Outcome:
    """Learn a log; `breaks` changes the learner where the fault begins."""
    run, faulty_ms, sums = Run(log.messages, has_gate), 0, np.zeros((2, 2))  # (sum of 1/rank, events) at two times
    previous = log.messages[0].appended
    for message in log.messages:
        if message.offset == log.start and breaks is not None:
            breaks(run.learner)
            run.faulty = True
        if run.served_faulty and message.offset < log.stop:
            faulty_ms += message.appended - previous
        previous = message.appended
        run.faulty |= breaks is None and log.start <= message.offset < log.stop
        run.feed(message)
        full = run.learner.evaluation.rankings["full"]
        if message.offset in (log.stop, log.messages[-1].offset):
            sums[int(message.offset > log.stop)] = full.sums()[0, 0], full.scored()["all"]
    reciprocal, scored = sums[1] - sums[0]
    return Outcome(faulty_ms / 1000, reciprocal / max(scored, 1), run.returns)


def cost_rows(messages: Sequence[Message]) -> list[Row]:
    """The gate's share of the learner's processor time, and how long a check delays a version."""
    run = Run(messages, has_gate=True)
    for message in messages:
        run.feed(message)
    share = run.checks_cpu_s / run.cpu_s
    return [
        make_row("50 events/s", "learner", [run.cpu_s], "CPU s"),
        make_row("50 events/s", "gate", [run.checks_cpu_s], "CPU s", share),
        make_row("50 events/s", "delay of a version by its check", [1e3 * delay for delay in run.delays_s], "ms"),
    ]


def fault_rows(case: str, log: FaultyLog, breaks: Callable[[LogLearner], None] | None = None) -> list[Row]:
    """A fault with and without the gate."""
    without, with_gate = (run_fault(log, has_gate, breaks) for has_gate in (False, True))
    return [
        make_row(case, "served faulty, no gate", [without.faulty_s], "s"),
        make_row(case, "served faulty, gate", [with_gate.faulty_s], "s", _ratio(with_gate.faulty_s, without.faulty_s)),
        make_row(case, "MRR after, no gate", [without.mrr_after], "MRR"),
        make_row(
            case, "MRR after, gate", [with_gate.mrr_after], "MRR", with_gate.mrr_after / max(without.mrr_after, 1e-9)
        ),
        make_row(case, "returns", [with_gate.returns], "returns"),
    ]


def _ratio(value: float, reference: float) -> float:
    return value / reference if reference else float("nan")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cost", action="store_true", help="measure only the gate's share of the time")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    data, encode = simulate(users=300, titles=600, events=EVENTS), load_encoder()
    clean = faulty_log(data, encode)
    save_results("gate", cost_rows(clean.messages))
    if arguments.cost:
        return
    save_results("gate", fault_rows("a weight is NaN", clean, make_not_finite))
    save_results("gate", fault_rows("learning rates x 1,000", clean, raise_learning_rates))
    save_results("gate", fault_rows("shuffled labels", faulty_log(shuffled(data), encode)))
    save_results("gate", fault_rows("fake users", faulty_log(with_fake_users(data), encode)))


if __name__ == "__main__":
    main()
