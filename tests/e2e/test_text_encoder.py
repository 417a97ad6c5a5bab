"""Titles of encoders of other widths, from their launch to the lists in Redis, and a change of the encoder."""

import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bytewax.testing import run_main

from features.redis_address import connect
from features.text_encoders import TextEncoder
from infra.local.services import start_services
from infra.operate.reembed import reembed
from infra.run.flow import Flow
from infra.run.learn import learn
from infra.run.publish import publish
from infra.run.runner import features, titles
from infra.settings import Settings
from model.recommender import Recommender
from streaming import topics as t
from streaming.records import Event, Launch, Version, to_json
from streaming.state.text_space import OtherEncoderError
from streaming.stores import list_client
from tests.support.learn_flow import announced_versions
from tests.support.streams import deadline
from tests.support.workers import committed_records, send_records

pytestmark = pytest.mark.long

TITLES, USERS, EVENTS = 30, 8, 240


@pytest.fixture
def services(broker: str, tmp_path: Path) -> Iterator[Settings]:
    given = Settings(data_dir=tmp_path, bootstrap_servers="", metrics_port=0, checkpoint_seconds=1, version_gate=False)
    with start_services(given) as settings:
        yield settings


def encoder(name: str, width: int) -> TextEncoder:
    """Gives each text a random vector of unit length."""

    def encode(texts: Any) -> Any:
        seeds = [int.from_bytes(blake2b(text.encode(), digest_size=4).digest(), "little") for text in texts]
        vectors = np.array([np.random.default_rng(seed).normal(size=width) for seed in seeds]).reshape(-1, width)
        return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)

    return TextEncoder(name, width, encode)


WIDE, NARROW = encoder("wide", 384), encoder("narrow", 64)


def run_until(build: Callable[[threading.Event], Flow], done: Callable[[], object]) -> None:
    """Run a flow like `premiere run` until a condition holds."""
    stop = threading.Event()

    def watch() -> None:
        is_late = deadline(150)
        while not (done() or is_late()):
            stop.wait(0.2)
        stop.set()

    flow = build(stop)
    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        run_main(flow.dataflow)
        for source in flow.sources:
            source.commit()
    finally:
        stop.set()
        watcher.join()
    assert done()


def send_events(settings: Settings, start: int, end: int) -> None:
    events = [
        Event(user=f"u{n % USERS}", title=f"t{n * 7 % TITLES}", ts=1_700_000_000_000 + 60_000 * n)
        for n in range(start, end)
    ]
    send_records(settings, t.USER_EVENTS, [(event.user, to_json(event)) for event in events])
    run_until(lambda stop: features(settings, stop), lambda: committed_records(settings, "features") >= end)


def launch_titles(settings: Settings, encode: TextEncoder, start: int, end: int) -> None:
    launches = [Launch(title=f"t{n}", name=f"Title {n}", overview=f"About {n % 5}") for n in range(start, end)]
    send_records(settings, t.TITLE_LAUNCHES, [(launch.title, to_json(launch)) for launch in launches])
    run_until(lambda stop: titles(settings, stop, encode=encode), lambda: committed_records(settings, "titles") >= end)


def learn_versions(settings: Settings, learned: int, width: int) -> Version:
    """The first version that learned this number of events and whose text embeddings have this width."""

    def found() -> Version | None:
        return next((one for one in announced_versions(settings)[::-1] if one.learned >= learned), None)

    run_until(lambda stop: learn(settings, stop), found)
    version = found()
    assert version is not None
    assert Recommender.load(version.path).text_space.width == width
    return version


def publish_lists(settings: Settings, version: int) -> list[str]:
    """The list of a user, of at least this version."""
    with closing(connect(settings.require_redis_url())) as client:

        def found() -> list[str]:
            revision = list_client.read_revision(client, "u1", settings.namespace)
            is_new = revision is not None and revision[1].version >= version
            return list_client.read(client, "u1", namespace=settings.namespace) if is_new else []

        run_until(lambda stop: publish(settings, stop), found)
        return found()


def test_lists_go_on_across_encoders_of_other_widths(services: Settings) -> None:
    launch_titles(services, WIDE, 0, TITLES)
    send_events(services, 0, EVENTS)
    learn_versions(services, EVENTS // 2, WIDE.width)
    newest = len(announced_versions(services)) - 1
    assert len(publish_lists(services, newest)) > 5

    with pytest.raises(OtherEncoderError, match="premiere reembed"):
        launch_titles(services, NARROW, TITLES, TITLES)
    launch_titles(services, WIDE, TITLES, TITLES + 1)  # setting the old one back works
    lines: list[str] = []
    reembed(services, lines.append, NARROW)
    assert f"{TITLES + 1} of {TITLES + 1}" in lines[-1]
    assert len(publish_lists(services, newest)) > 5  # the version of the old encoder goes on
    launch_titles(services, NARROW, TITLES + 1, TITLES + 3)
    send_events(services, EVENTS, 2 * EVENTS)
    version = learn_versions(services, EVENTS + EVENTS // 2, NARROW.width)
    catalog = Recommender.load(version.path).stream_state.catalog
    assert all(catalog.semantic_VE[catalog.rows[f"t{n}"]].any() for n in range(TITLES + 3))
    assert len(publish_lists(services, len(announced_versions(services)) - 1)) > 5
