"""Under load the learner does less per event, and never less than its limits allow."""

from streaming.state.log_settings import LogSettings


def test_load_level_follows_from_rate_and_settings() -> None:
    settings = LogSettings(
        min_batch_events=64, max_batch_events=512, capacity=150.0, min_replay_ratio=0.2, full_eval_rate=200.0
    )
    assert settings.load_level(0) == settings.load_level(150) == (64, 1.0, 1.0)
    assert settings.load_level(200) == (64, 0.75, 1.0)
    assert settings.load_level(1_000) == (320, 0.2, 0.2)
    assert settings.load_level(10_000) == (512, 0.2, 0.02)
