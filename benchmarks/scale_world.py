"""A learner in the state that a long stream leaves, over any number of titles, made in seconds.

The state's arrays are filled directly. The tables of title pairs are full, with neighbors drawn by popularity; text
neighbors are drawn within the topic, because a search would cost O(V^2). The users' events are real ones in the user
store. Popularity follows Zipf's law, and half of a user's titles come from one topic.

V titles · U users · K neighbors of a title · L events of one history · M a subset of titles · E width of a text
embedding · Z decay clocks · B user-activity buckets
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from model.actions import ACTIONS
from model.learner import Learner
from model.recommender import UserContext
from model.settings import LearnerSettings, StreamStateSettings
from model.state import counters as counting
from model.state.catalog import Catalog, genre_codes
from model.state.id_table import shared_id
from model.state.static_signals import new_static_signals, update_static_signals
from model.state.stream_state import History, TitleMetadata, UserUpdate

START_MS: Final = 1_700_000_000_000
EVENT_GAP_MS, LAUNCH_GAP_MS, HISTORY_GAP_MS = 1_000, 60_000, 3_600_000
TOPICS: Final = 50
TEXT_DIM: Final = 256
TEXT_NOISE: Final = 1.5  # length of a title's own part of its text, in that of its topic
ZIPF_EXPONENT: Final = 0.9
EVENTS_PER_USER, MAX_USER_EVENTS = 40, 2_000
MIN_STREAM_USERS: Final = 20_000  # users behind the counts of the titles
MAX_NEIGHBOR_DISTANCE: Final = 2_000  # in the order of the topics, of text neighbors
MAX_HISTORY: Final = 100  # events in a user's context
REPLAY_USERS: Final = 512  # whose histories the replay buffer holds
RANKER_EXAMPLES: Final = 256
BLOCK_ROWS: Final = 1 << 15  # rows that are filled at a time: bounds the memory beside the state
ROW_MARGIN: Final = 64  # rows for titles that are launched later, so that no array grows meanwhile
PLAY: Final = ACTIONS["play"].code
_POPULARITY_SHARES_Z: Final = np.array([0.01, 0.05, 0.2, 0.4, 0.9, 0.01, 0.05], np.float32)
_BUCKET_SHARES_B: Final = np.array([0.05, 0.1, 0.25, 0.3, 0.2, 0.1], np.float32)


class ScaleWorld:
    """Titles, users and their learner."""

    def __init__(self, titles: int, users: int, seed: int = 0) -> None:
        self.titles, self.users = titles, users
        random = self.random = np.random.default_rng(seed)
        self.topic_V = random.integers(0, TOPICS, titles)
        self.popular_V = random.permutation(titles)  # rows, most popular first
        weight_V = 1 / (1 + np.arange(titles)) ** ZIPF_EXPONENT
        self.cumulative_V = weight_V.cumsum() / weight_V.sum()
        self.count_V = np.zeros(titles, np.float32)
        events = EVENTS_PER_USER * max(users, MIN_STREAM_USERS)
        self.count_V[self.popular_V] = np.rint(events * weight_V / weight_V.sum())
        self.learner = Learner(LearnerSettings(StreamStateSettings(max_titles=max(2 * titles, 1024))))
        self.state = self.learner.stream_state
        self._fill_catalog()
        self._fill_counters()
        self.histories = self._draw_histories()  # rows by user
        self._fill_users()
        self.now = START_MS + sum(map(len, self.histories)) * EVENT_GAP_MS
        self._train_on_noise()

    def texts(self, topic_M: NDArray[np.int64]) -> NDArray[np.float32]:
        """Unit vectors [M, E] of random texts on these topics."""
        random = np.random.default_rng(TOPICS)
        common_E, topic_KE = random.normal(size=TEXT_DIM), random.normal(size=(TOPICS, TEXT_DIM))
        noise_ME = TEXT_NOISE * self.random.standard_normal((len(topic_M), TEXT_DIM), np.float32)
        text_ME = (common_E + topic_KE[topic_M]).astype(np.float32) + noise_ME
        unit_ME: NDArray[np.float32] = text_ME / np.linalg.norm(text_ME, axis=1, keepdims=True)
        return unit_ME

    def launch(self, n: int) -> TitleMetadata:
        """The n-th title that launches after the state was made."""
        genres = [f"g{n % TOPICS % 20}", f"h{n % TOPICS % 7}"]
        (text_E,) = self.texts(np.array([n % TOPICS]))
        return TitleMetadata(f"n{n}", text_E, genres, 2020, START_MS, False, recorded=self.now)

    def user_context(self, user: int) -> UserContext:
        """The user as `publish` knows them: the last events and all seen titles."""
        names = self._ids(self.histories[user])
        times, actions = self._times(min(len(names), MAX_HISTORY)), [PLAY] * min(len(names), MAX_HISTORY)
        return UserContext(f"u{user}", names[-MAX_HISTORY:], times, actions, names, len(names))

    def micro_batch(self, events: int, first_user: int) -> list[UserUpdate]:
        """This many events, each of another user."""
        updates = []
        for n in range(events):
            user = (first_user + n) % self.users
            names = self._ids(self.histories[user][1 - MAX_HISTORY :]) + self._ids(self._draw(1))
            times, actions = [*self._times(len(names) - 1), self.now + n], [PLAY] * len(names)
            updates.append(UserUpdate(f"u{user}", names, times, actions, [len(names) - 1], [n]))
        return updates

    def _ids(self, rows: NDArray[np.int32]) -> list[str]:
        return [self.state.catalog.ids[row] for row in rows.tolist()]

    def _times(self, count: int) -> list[int]:
        """Times of a user's last events."""
        return [self.now - (count - n) * HISTORY_GAP_MS for n in range(count)]

    def _draw(self, count: int) -> NDArray[np.int32]:
        """Rows drawn by popularity."""
        return self.popular_V[np.searchsorted(self.cumulative_V, self.random.random(count))].astype(np.int32)

    def _blocks(self) -> list[slice]:
        return [slice(at, min(at + BLOCK_ROWS, self.titles)) for at in range(0, self.titles, BLOCK_ROWS)]

    def _fill_catalog(self) -> None:
        titles, state, capacity = self.titles, self.state, 1024
        while capacity < titles + ROW_MARGIN:
            capacity *= 2  # as the catalog itself grows
        catalog = state.catalog = Catalog(TEXT_DIM, capacity)
        state.counters = counting.empty_counters(capacity)
        state.user_store.grow_titles(capacity)
        catalog.ids = [shared_id(f"t{n}") for n in range(titles)]
        catalog.rows = {title: n for n, title in enumerate(catalog.ids)}
        n_V = np.arange(titles)
        catalog.launch_sequence_V[:titles] = catalog.last_used_V[:titles] = n_V + 1
        catalog.launched_V[:titles] = True
        catalog.launched_ms_V[:titles] = START_MS - (titles + 24 * 60 - n_V) * LAUNCH_GAP_MS
        catalog.launch_order = catalog.current_launch_order()
        catalog.count_V[:titles] = self.count_V
        catalog.year_V[:titles], catalog.released_V[:titles] = 1960 + n_V % 60, START_MS - n_V
        codes = np.array([genre_codes([f"g{topic % 20}", f"h{topic % 7}"]) for topic in range(TOPICS)])
        catalog.genres_VG[:titles] = codes[self.topic_V]
        state.sequence = titles
        by_topic, neighbors = np.argsort(self.topic_V, kind="stable"), catalog.text_neighbors
        neighbors.settled_V[:titles] = True
        distance = min(MAX_NEIGHBOR_DISTANCE, titles // (2 * TOPICS) + 1)  # most neighbors are of the title's topic
        for at in self._blocks():
            catalog.semantic_VE[at] = self.texts(self.topic_V[at])
            shape = (at.stop - at.start, neighbors.to_VK.shape[1])
            offset_MK = self.random.integers(-distance, distance, shape)
            offset_MK += offset_MK >= 0  # no title is its own neighbor
            near_MK = (np.arange(at.start, at.stop)[:, None] + offset_MK) % titles
            neighbors.to_VK[by_topic[at]] = by_topic[near_MK]
            neighbors.cosine_VK[by_topic[at]] = self.random.uniform(0.3, 0.9, shape)
        text_VE = catalog.semantic_VE[:titles]
        sum_E = text_VE.sum(axis=0, dtype=np.float64)
        center = {"center_E": (sum_E / titles).astype(np.float32), "sum_2E": np.stack([sum_E, sum_E])}
        catalog.text_center.load_state_dict({**center, "texts_2": np.full(2, titles)}, text_VE)
        catalog.text_cells.update(text_VE, np.arange(titles))

    def _fill_counters(self) -> None:
        counters, titles, pool = self.state.counters, self.titles, self._draw(1 << 20)
        for pairs in (counters.transitions, counters.session_cooccurrence, counters.cooccurrence):
            for at in self._blocks():
                shape = (at.stop - at.start, pairs.to_VK.shape[1])
                pairs.to_VK[at] = pool[self.random.integers(0, len(pool), shape, dtype=np.int32)]
                pairs.weight_VK[at] = 2 * self.random.standard_exponential(shape, np.float32)
                pairs.total_V[at] = pairs.weight_VK[at].sum(1)
        counting.advance_clocks(counters, START_MS, int(self.count_V.sum()))
        self.state.events = int(self.count_V.sum())
        count_V1 = self.count_V[:, None]
        counters.popularity_VZ[:titles] = count_V1 * _POPULARITY_SHARES_Z
        counters.bucket_count_VB[:titles] = count_V1 * _BUCKET_SHARES_B
        counters.evidence_V2[:titles, 0] = self.count_V
        counters.liking_sum_V[:titles] = self.count_V / 2
        counters.last_event_V[:titles] = START_MS - self.random.integers(0, int(30 * counting.DAY_MS), titles)
        self.state.static_VF = new_static_signals(self.state.catalog.capacity)
        update_static_signals(self.state.static_VF, counters, self.state.catalog.count_V[:titles], np.arange(titles))

    def _draw_histories(self) -> list[NDArray[np.int32]]:
        """Each user's rows in order, half of them by popularity, half of one topic, its popular titles first."""
        counts = self.random.lognormal(np.log(EVENTS_PER_USER), 0.8, self.users).clip(5, MAX_USER_EVENTS).astype(int)
        of_topic = [self.popular_V[self.topic_V[self.popular_V] == topic] for topic in range(TOPICS)]
        histories = []
        for count in counts.tolist():
            rows, topic = self._draw(count), of_topic[int(self.random.integers(TOPICS))]
            if len(topic):
                picked = (len(topic) ** self.random.random(count // 2)).astype(np.int64) - 1
                rows[self.random.permutation(count)[: count // 2]] = topic[picked.clip(0, len(topic) - 1)]
            histories.append(rows)
        return histories

    def _fill_users(self) -> None:
        """Add all events to the user store in a random order of the users, after the titles' other events."""
        store = self.state.user_store
        store.interactions.title_count_V[: self.titles] = self.count_V
        events = np.repeat(np.arange(self.users), [len(rows) for rows in self.histories])
        done = [0] * self.users
        for user in self.random.permutation(events).tolist():
            store.add(f"u{user}", int(self.histories[user][done[user]]))
            done[user] += 1

    def _train_on_noise(self) -> None:
        """Give the ranker a training step, so that its network is used, the replay buffer some histories, and the
        sequence model the titles' vectors."""
        pipeline = self.learner.served_pipeline
        ranker, sequence = pipeline.ranker, pipeline.sequence
        shape = ranker.signals_NCF.shape[1:]
        for _ in range(RANKER_EXAMPLES):
            ranker.add_example(self.random.random(shape, np.float32), np.zeros(shape[0], np.float32))
        ranker.learn()
        assert sequence is not None
        sequence.refresh(self.state.catalog)
        for user in range(min(self.users, REPLAY_USERS)):
            rows = self.histories[user][-MAX_HISTORY:].astype(np.int64)
            times, actions = np.array(self._times(len(rows)), np.int64), np.full(len(rows), PLAY, np.int64)
            sequence.add_to_replay(History(f"u{user}", rows, times, actions), len(self.histories[user]))
