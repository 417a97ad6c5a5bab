"""The dense learner ranks and counts each event, and takes the training steps."""

from benchmarks.dense.learning import DenseLearner
from benchmarks.scale_world import ScaleWorld


def test_micro_batch_is_ranked_counted_and_learned() -> None:
    world = ScaleWorld(titles=1_500, users=60)
    ranker, sequence = world.learner.served_pipeline.ranker, world.learner.served_pipeline.sequence
    assert sequence is not None
    events, examples, steps = world.state.events, ranker.examples_written, sequence.optimizers.dense.steps
    ranks = DenseLearner(world.learner).observe(world.micro_batch(6, 0))
    assert len(ranks) == 6
    assert all(rank >= 1 for rank in ranks)
    assert world.state.events == events + 6
    assert ranker.examples_written > examples
    assert sequence.optimizers.dense.steps > steps
