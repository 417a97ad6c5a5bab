"""Under load the learner does less per event, and never less than its limits allow."""

from streaming.state.log_settings import LogSettings


def test_load_level_follows_the_event_rate() -> None:
    settings = LogSettings(min_batch_events=64, max_batch_events=512, full_replay_rate=100, full_eval_rate=100)
    assert settings.load_level(0) == (64, 1.0, 1.0)
    assert settings.load_level(200) == (128, 0.5, 0.5)
    assert settings.load_level(100_000) == (512, settings.min_replay_ratio, 0.001)
