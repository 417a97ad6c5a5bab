"""Mutation test of the limits that stop hostile producers: each mutant must make the test fail that it names.

    python -m tests.tools.limit_mutants [--only WORD]   takes some minutes; exits with 1 if a mutant survives

Each name begins with the fault that the limit prevents:

    C1   invented titles evict launched ones            H1   fake events make a title popular
    C2   names, texts and ids of any size               M4   one-event users evict known ones
    C3   state without an end                           M11  topics and dead letters without a bound in bytes
    H2   invented launches take the places of new titles, or change their signals
"""

import sys
from typing import Final

from tests.tools.mutants import Mutant, main

LIMIT_MUTANTS: Final = (
    Mutant(
        "C1: titles that never launched are evicted like launched ones",
        "model/state/catalog.py",
        "np.lexsort((self.last_used_V[live], self.launched_V[live]))",
        "np.argsort(self.last_used_V[live])",
        killed_by="model/state/test_catalog.py::test_titles_that_never_launched_are_evicted_first",
    ),
    Mutant(
        "C1: events of one user give a title its row",
        "model/state/admission.py",
        "if user_hash not in users:",
        "if True:",
        killed_by="model/state/test_admission.py::test_title_is_admitted_by_distinct_users",
    ),
    Mutant(
        "C1: any number of titles waits",
        "model/state/admission.py",
        "while len(self._users) > self.capacity:",
        "while False:",
        killed_by="model/state/test_admission.py::test_room_evicts_the_least_recently_used_title",
    ),
    Mutant(
        "C1: a withdrawal gives an unknown title a row",
        "model/state/stream_state.py",
        "if self._is_repeated(title) or (title.withdrawn and title.title not in self.catalog.rows):",
        "if self._is_repeated(title):",
        killed_by="model/state/test_stream_state.py::test_withdrawal_of_an_unknown_title_gives_it_no_row",
    ),
    Mutant(
        "C2: a name of any size is stored",
        "streaming/flows/titles.py",
        "launch.name.encode()[:MAX_NAME_BYTES]",
        "launch.name.encode()",
        killed_by="streaming/flows/test_titles.py::"
        "test_stored_name_and_genres_are_bounded_in_bytes_and_the_text_is_not_shortened",
    ),
    Mutant(
        "C2: genres of any size are stored",
        "streaming/flows/titles.py",
        "len(genre.encode())) > MAX_NAME_BYTES:",
        "len(genre.encode())) < 0:",
        killed_by="streaming/flows/test_titles.py::"
        "test_stored_name_and_genres_are_bounded_in_bytes_and_the_text_is_not_shortened",
    ),
    Mutant(
        "C2: ids are bounded in characters alone",
        "streaming/kafka/dead_letters.py",
        "len(value.encode())) > MAX_ID_BYTES:",
        "len(value)) > MAX_ID_BYTES:",
        killed_by="streaming/kafka/test_dead_letters.py::test_id_is_bounded_in_bytes",
    ),
    Mutant(
        "C2: a record of any size is decoded",
        "streaming/kafka/dead_letters.py",
        "if len(message.value) > max_bytes:",
        "if False:",
        killed_by="streaming/kafka/test_dead_letters.py::test_undecodable_record_is_invalid_with_a_reason_type",
    ),
    Mutant(
        "C2: a text of any size is embedded",
        "features/text_encoders.py",
        "text.encode()[:MAX_TEXT_BYTES]",
        "text.encode()",
        killed_by="features/test_text_encoders.py::test_launch_text_may_be_empty_and_is_truncated",
    ),
    Mutant(
        "C3: states never end",
        "streaming/state/expiry.py",
        "if day >= now // DAY_MS and self.count",
        "if self.count",
        killed_by="streaming/state/test_expiry.py::test_state_is_due_on_the_day_after_its_end",
    ),
    Mutant(
        "C3: any number of states is kept",
        "streaming/state/expiry.py",
        "now // DAY_MS and self.count <= self.max_states:",
        "now // DAY_MS:",
        killed_by="streaming/state/test_expiry.py::test_states_beyond_the_limit_end_in_the_order_of_their_days",
    ),
    Mutant(
        "C3: one-event users are kept as long as others",
        "streaming/state/user_state.py",
        "lifetimes.new_user_ms if is_new_user else lifetimes.user_ms",
        "lifetimes.user_ms",
        killed_by="streaming/state/test_user_state.py::test_users_with_few_events_are_kept_for_a_shorter_time",
    ),
    Mutant(
        "C3: features sends no expiration",
        "streaming/flows/features.py",
        "return users + [(user, [expiration])",
        "return users or [(user, [expiration])",
        killed_by="streaming/flows/test_features.py::test_state_ends_after_its_lifetime_and_the_user_is_new_again",
    ),
    Mutant(
        "C3: titles sends no expiration",
        "streaming/flows/titles.py",
        "return titles + [(title, [expiration])",
        "return titles or [(title, [expiration])",
        killed_by="streaming/flows/test_titles.py::test_state_ends_after_its_lifetime_and_the_title_is_new_again",
    ),
    Mutant(
        "C3: publish keeps any number of titles",
        "streaming/state/title_cache.py",
        "while len(self.titles) > self.titles.capacity:",
        "while False:",
        killed_by="streaming/state/test_title_cache.py::"
        "test_full_cache_evicts_withdrawn_titles_first_then_the_longest_unchanged",
    ),
    Mutant(
        "C3: publish keeps any number of seen titles",
        "streaming/state/user_cache.py",
        "while len(cached.seen) > self.max_seen:",
        "while False:",
        killed_by="streaming/state/test_user_cache.py::test_seen_titles_are_bounded_to_the_most_recent",
    ),
    Mutant(
        "H1: repeated events count in full",
        "model/state/event_evidence.py",
        "1 / repeat**2 if repeat <= s.daily_repeats else 0.0",
        "1.0",
        killed_by="model/state/test_event_evidence.py::test_repeats_within_a_day_count_less_and_end",
    ),
    Mutant(
        "H1: the learner counts every event as the first",
        "model/state/new_events.py",
        "recorded[index], action, repeat)",
        "recorded[index], action, 1)",
        killed_by="model/test_learner_evidence.py::test_repeated_event_of_one_user_counts_like_a_few_events",
    ),
    Mutant(
        "H1: a new user counts as an established one",
        "model/state/event_evidence.py",
        "standing = float(min(1.0, (user_events + 1) / s.established_events) ** s.growth)",
        "standing = 1.0",
        killed_by="model/state/test_event_evidence.py::test_users_become_established_with_their_events",
    ),
    Mutant(
        "H1: new users need no established ones",
        "model/state/counters.py",
        "min(evidence.new, max(room, 0.0))",
        "evidence.new",
        killed_by="model/state/test_counters.py::test_new_users_count_only_as_far_as_established_users_back_the_title",
    ),
    Mutant(
        "H1: one user fills the replay buffer",
        "model/sequence/experience_replay.py",
        "if len(age_N) >= self.max_user_windows:",
        "if False:",
        killed_by="model/sequence/test_experience_replay.py::"
        "test_user_with_many_events_holds_a_bounded_number_of_windows",
    ),
    Mutant(
        "H2: a list takes any number of titles of a minute",
        "model/new_titles.py",
        "first = first and new.minute_M[this] != new.minute_M[other]",
        "pass",
        killed_by="model/test_new_titles.py::test_flood_of_launches_in_a_minute_gets_one_slot",
    ),
    Mutant(
        "H2: a list takes near-identical titles",
        "model/new_titles.py",
        "repeated = repeated or new.cosine_MM[this, other] >= NEAR_IDENTICAL",
        "pass",
        killed_by="model/test_new_titles.py::test_list_has_one_of_new_titles_with_near_identical_texts",
    ),
    Mutant(
        "H2: launches of a minute compete without a quota",
        "model/new_titles.py",
        "if turn == MAX_PER_MINUTE:",
        "if turn == -1:",
        killed_by="model/test_new_titles.py::test_launches_beyond_the_quota_of_a_minute_wait_for_events_of_the_first",
    ),
    Mutant(
        "H2: launches beyond the quota count as proven",
        "model/new_titles.py",
        "is_new_C = (catalog.launch_sequence_V[rows_C] < NOT_LAUNCHED) & (catalog.count_V[rows_C] < MIN_EVIDENCE)",
        "is_new_C = new_titles.competing_V[rows_C]",
        killed_by="model/test_new_titles.py::test_launches_beyond_the_quota_have_no_more_places",
    ),
    Mutant(
        "H2: a flood fills the scored titles",
        "model/new_titles.py",
        'best_first_M[np.argsort(turn_M, kind="stable")]',
        "best_first_M",
        killed_by="model/test_new_titles.py::test_flood_of_a_minute_leaves_other_minutes_their_scored_titles",
    ),
    Mutant(
        "H2: near-identical titles fill the scored titles",
        "model/similar_texts.py",
        "if leader_M[older] == older and _cosine(text_ME[m], text_ME[older]) >= NEAR_IDENTICAL:",
        "if False:",
        killed_by="model/test_new_titles.py::test_near_identical_titles_take_one_of_the_scored_places",
    ),
    Mutant(
        "H2: a flood ends the time of older titles",
        "model/new_titles.py",
        "np.unique(minute_M[unrepeated_M])",
        "np.sort(minute_M)",
        killed_by="model/test_new_titles.py::test_flood_of_a_minute_ends_the_time_of_no_older_title",
    ),
    Mutant(
        "H2: floods of many minutes push out other minutes",
        "model/new_titles.py",
        'np.argsort(turn_M, kind="stable")[:MAX_NEW_TITLES]',
        "np.arange(len(turn_M))[:MAX_NEW_TITLES]",
        killed_by="model/test_new_titles.py::test_floods_of_many_minutes_leave_room_for_a_title_of_another_minute",
    ),
    Mutant(
        "H2: a launch is a text neighbor at once",
        "model/state/stream_state.py",
        "(age_M >= SETTLING_MS)",
        "(age_M >= -SETTLING_MS)",
        killed_by="model/test_learner_evidence.py::test_invented_launches_change_no_text_neighbors",
    ),
    Mutant(
        "H2: texts of invented launches move the center of all texts",
        "model/state/text_center.py",
        "(self._sum_2E[0] + PRIOR_TITLES / texts * self._sum_2E[1]) / (settled + PRIOR_TITLES)",
        "self._sum_2E[1] / texts",
        killed_by="model/signals/test_candidates.py::test_invented_launches_hardly_change_the_centered_texts",
    ),
    Mutant(
        "M4: no user of the learner is proven",
        "model/state/user_store.py",
        "is_proven=events >= PROVEN_EVENTS",
        "is_proven=False",
        killed_by="model/state/test_user_store.py::test_users_of_one_event_evict_no_proven_user",
    ),
    Mutant(
        "M4: no user of publish is proven",
        "streaming/state/user_cache.py",
        "cached.positives >= PROVEN_EVENTS",
        "False",
        killed_by="streaming/state/test_user_cache.py::test_users_of_one_event_evict_no_proven_user",
    ),
    Mutant(
        "M4: proven users leave no room for new ones",
        "model/state/segmented_cache.py",
        "if len(self.proven) > self.max_proven:",
        "if False:",
        killed_by="model/state/test_segmented_cache.py::test_proven_entries_leave_room_for_newcomers",
    ),
    Mutant(
        "M4: proven entries are evicted first",
        "model/state/segmented_cache.py",
        "(self.probation or self.proven).popitem",
        "(self.proven or self.probation).popitem",
        killed_by="model/state/test_segmented_cache.py::test_entries_on_probation_are_evicted_before_proven_ones",
    ),
    Mutant(
        "M11: topics have no retention in bytes",
        "streaming/topics.py",
        'return config if mib is None else {**config, "retention.bytes": str(mib * _MIB)}',
        "return config",
        killed_by="streaming/test_topics.py::test_topics_that_producers_fill_are_bounded_in_bytes",
    ),
    Mutant(
        "M11: any number of dead letters is written",
        "streaming/kafka/dead_letters.py",
        "if self.letters <= self.max_letters and self.size",
        "if self.size",
        killed_by="streaming/kafka/test_dead_letters.py::test_letters_beyond_the_budget_of_a_minute_are_counted",
    ),
    Mutant(
        "M11: dead letters of any size are written",
        "streaming/kafka/dead_letters.py",
        "self.letters <= self.max_letters and self.size <= self.max_size:",
        "self.letters <= self.max_letters:",
        killed_by="streaming/kafka/test_dead_letters.py::test_budget_also_limits_the_bytes_of_letters",
    ),
)


if __name__ == "__main__":
    sys.exit(main(LIMIT_MUTANTS, __doc__))
