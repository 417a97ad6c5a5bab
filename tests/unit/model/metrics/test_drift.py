"""A fall of the mean is detected soon, chance is not, and the detector continues bit for bit."""

from collections.abc import Sequence

import numpy as np

from model.metrics.drift import DriftDetector, DriftSettings

SETTINGS = DriftSettings(block=16, warmup_blocks=10)


def values(mean: float, count: int, seed: int) -> list[float]:
    """Reciprocal ranks minus those of a baseline: skewed, with a deviation of about 0.3."""
    noise = np.random.default_rng(seed).exponential(0.3, count)
    drawn: list[float] = (mean + noise - 0.3).tolist()
    return drawn


def alarms(detector: DriftDetector, stream: Sequence[float]) -> list[int]:
    """Numbers of the values after which the alarm is on."""
    found = []
    for number, value in enumerate(stream):
        detector.add([value])
        if detector.is_alarm:
            found.append(number)
    return found


def test_chance_raises_no_alarm() -> None:
    for seed in range(5):
        assert alarms(DriftDetector(SETTINGS), values(0.1, 20_000, seed)) == []


def test_fall_of_the_mean_is_found_within_forty_blocks() -> None:
    for seed in range(5):
        detector = DriftDetector(SETTINGS)
        assert alarms(detector, values(0.1, 3_200, seed)) == []
        first = alarms(detector, values(-0.05, 3_200, seed))[0]
        assert first < 40 * SETTINGS.block


def test_slow_change_becomes_the_norm() -> None:
    stream = [v - 0.2 * i / 40_000 for i, v in enumerate(values(0.1, 40_000, 1))]
    assert alarms(DriftDetector(SETTINGS), stream) == []


def test_alarm_ends_after_a_recovery_however_long_the_fall_was() -> None:
    detector = DriftDetector(SETTINGS)
    detector.add(values(0.1, 3_200, 1) + values(-0.1, 16_000, 2))
    assert detector.is_alarm
    still = alarms(detector, values(0.1, 3_200, 3))
    assert still[-1] < 20 * SETTINGS.block
    assert not detector.is_alarm


def test_values_before_a_reset_do_not_count() -> None:
    detector, fresh = DriftDetector(SETTINGS), DriftDetector(SETTINGS)
    detector.add(values(0.1, 1_005, 1))
    detector.reset()
    for one in (detector, fresh):
        one.add(values(-5.0, 3_200, 2))
    assert detector.state_dict() == fresh.state_dict()
    assert not detector.is_alarm


def test_state_continues_bit_for_bit() -> None:
    whole, first, second = (DriftDetector(SETTINGS) for _ in range(3))
    stream = values(0.1, 1_600, 4) + values(-0.1, 805, 5)
    whole.add(stream)
    first.add(stream[:1_003])
    second.load_state_dict(first.state_dict())
    second.add(stream[1_003:])
    assert second.state_dict() == whole.state_dict()
    assert whole.is_suspect
