"""The publisher while the served version and the titles are of different text encoders."""

import numpy as np
from msgspec import structs

from model.learner import Learner
from model.recommender import Recommender
from model.state.embedding_space import EmbeddingSpace
from streaming.records import Title
from streaming.state.publisher import Publisher
from tests.support.publish import SETTINGS, predictions_by_user, state, work_until_idle, world
from tests.support.publisher import new_title, serving_publisher

OTHER = EmbeddingSpace("other", 7)


def embedded_again(title: Title) -> Title:
    """The title as the other encoder writes it."""
    vector = np.eye(OTHER.width, dtype="<f4")[title.offset % OTHER.width]
    return structs.replace(title, stamp=title.stamp + 1, encoder=OTHER.encoder, semantic=vector.tobytes())


def version_of_the_other_encoder() -> Recommender:
    learner = Learner(SETTINGS)
    learner.load_state_dict(state())
    learner.restart_text(OTHER)
    return Recommender.from_state(learner.state_dict(), SETTINGS)


def has_text(publisher: Publisher, title: str) -> bool:
    assert publisher.recommender is not None
    catalog = publisher.recommender.stream_state.catalog
    return bool(catalog.semantic_VE[catalog.rows[title]].any())


def test_title_of_another_encoder_is_a_candidate_without_text() -> None:
    publisher = serving_publisher()
    work_until_idle(publisher)
    title = embedded_again(new_title())
    publisher.on_launches([title])
    assert publisher.recommender is not None
    assert publisher.recommender.is_candidate(title.title)
    assert not has_text(publisher, title.title)
    work_until_idle(publisher)


def test_versions_of_both_encoders_follow_each_other() -> None:
    publisher = serving_publisher()
    before = predictions_by_user(work_until_idle(publisher))
    publisher.on_launches([embedded_again(title) for title in world().titles])
    work_until_idle(publisher)
    publisher.serve(1, version_of_the_other_encoder(), list(publisher.titles.titles.values()))
    assert all(has_text(publisher, title.title) for title in world().titles if title.semantic)
    after = embedded_again(new_title("Space III", offset=600))
    publisher.on_launches([after, new_title("Space IV", offset=601)])  # users' vectors are of the older version
    assert (has_text(publisher, after.title), has_text(publisher, "space iv")) == (True, False)
    lists = predictions_by_user(work_until_idle(publisher))
    assert set(lists) == set(before)
    assert all(one.version == 1 for one in lists.values())
