"""A model version that has seen titles but no event."""

from pathlib import Path

from features.text_encoders import launch_text, load_encoder
from infra.data.simulate import simulate
from infra.learner_settings import learner_settings
from infra.settings import Settings
from model import checkpoint
from model.learner import Learner
from model.state.stream_state import TitleMetadata
from streaming.records import Version

DATA = simulate(users=8, titles=40, events=120, days=60, seed=4)


def version(settings: Settings, folder: Path) -> Version:
    """Write the checkpoint of a learner that knows the titles of DATA and no event, and return its version."""
    learner, encode = Learner(learner_settings(settings)), load_encoder()
    texts = [launch_text(one.name, one.genres, one.overview) for one in DATA.launches]
    vectors = zip(DATA.launches, encode(texts), strict=True)
    learner.observe([TitleMetadata(one.title, row, one.genres, one.year, None, False) for one, row in vectors])
    url = str(folder / "000000000001")
    checkpoint.save(url, learner.state_dict(), {"step": 1, "position": 0, "learned": 0, "mrr": None, "created": 0})
    return Version(path=url, step=1, position=0, learned=0, mrr=None, created=0)
