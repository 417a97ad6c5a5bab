"""Mutation test of what keeps a fault of a process or of a record from doing damage: each must be noticed by a test.

    python -m tests.tools.trust_mutants [--only WORD]   takes some minutes; exits with 1 if a mutant survives

Each name begins with the fault that is prevented:

    C4   erasure requests that stop a flow              H7   checkpoints that are not on the disk
    C5   erasures and withdrawals by anybody            H8   a withdrawal that a lost recovery store revokes
    H3   events that are learned twice                  H9   a number that ruins the ranker
    H4   events of a recreated topic that are lost      H10  a bad version in service
    H5   a replaced process that still writes           H11  an error that ends publish
    H6   checkpoints of other formats that are deleted  M14  an activity record beyond Kafka's limit
"""

import sys
from typing import Final

from tests.tools.mutants import Mutant, main

TRUST_MUTANTS: Final = (
    Mutant(
        "C4: one run applies any number of erasure requests",
        "streaming/stores/erasure.py",
        "> MAX_REQUESTS:",
        "> 10**12:",
        killed_by="streaming/stores/test_compaction.py::test_requests_beyond_the_limit_of_a_run_wait_for_the_next",
    ),
    Mutant(
        "C5: a launch may withdraw a title",
        "streaming/flows/titles.py",
        '    check_not_moved(message, "withdrawn", TITLE_WITHDRAWALS)\n',
        "",
        killed_by="streaming/flows/test_titles.py::test_withdrawal_in_a_launch_names_the_topic_of_withdrawals",
    ),
    Mutant(
        "C5: an erasure request also covers later rows",
        "streaming/stores/erasure.py",
        'pc.less_equal(oldest, requests["appended"].take(at))',
        'pc.is_valid(requests["appended"].take(at))',
        killed_by="streaming/stores/test_erasure.py::test_rows_appended_up_to_the_newest_request_of_their_user_are_dropped",
    ),
    Mutant(
        "C5: an event may erase a user",
        "streaming/flows/features.py",
        '    check_not_moved(message, "erase", ERASURE_REQUESTS)\n',
        "",
        killed_by="streaming/flows/test_features_erasure.py::test_erase_flag_in_an_event_names_the_topic_of_requests",
    ),
    Mutant(
        "H10: weights that are not finite are announced",
        "streaming/flows/learn.py",
        "if version.step in self.passed:",
        "if True:",
        killed_by="streaming/flows/test_learn_gate.py::test_state_that_is_not_finite_is_saved_but_not_announced",
    ),
    Mutant(
        "H11: a version outside of the checkpoints is loaded",
        "infra/run/publish.py",
        "if not is_below(url, checkpoints):",
        "if False:",
        killed_by="infra/run/test_publish.py::test_version_outside_the_checkpoint_folder_is_not_loaded",
    ),
    Mutant(
        "H11: an error while loading ends publish",
        "streaming/state/version_loader.py",
        "except Exception as error:\n            self._skip(loaded",
        "except CheckpointError as error:\n            self._skip(loaded",
        killed_by="streaming/state/test_version_loader_failures.py::test_any_error_of_a_load_leaves_the_served_version_in_service",
    ),
    Mutant(
        "H3: repeated events are taken after a long replay",
        "streaming/state/deduplicator.py",
        "self.window = window",
        "self.window = 1",
        killed_by="streaming/state/test_deduplicator.py::test_out_of_order_event_within_the_window_is_new_once",
    ),
    Mutant(
        "H4: events of a recreated topic count as repeats",
        "streaming/state/deduplicator.py",
        "partitions = self.sources.get(source)",
        'partitions = self.sources.get(source := "")',
        killed_by="streaming/state/test_deduplicator.py::test_recreated_topic_has_its_own_offsets",
    ),
    Mutant(
        "H4: publish compares offsets of different topics",
        "streaming/state/user_cache.py",
        "cached is not None and cached.source == activity.source:",
        "cached is not None:",
        killed_by="streaming/state/test_user_cache.py::test_first_event_of_a_recreated_topic_replaces_the_history",
    ),
    Mutant(
        "H5: Redis accepts a replaced process",
        "streaming/stores/fence.py",
        "if tonumber(number) > 0 and newest > tonumber(number) then return -1 end",
        "",
        killed_by="streaming/stores/test_fence.py::test_replaced_process_overwrites_nothing",
    ),
    Mutant(
        "H5: a replaced learner writes checkpoints",
        "streaming/state/checkpoints.py",
        'manifest.get("owner", 0) > self.owner.number',
        "False",
        killed_by="streaming/state/test_checkpoints.py::test_replaced_learner_writes_and_deletes_nothing",
    ),
    Mutant(
        "H5: a stalled owner writes when it wakes",
        "streaming/kafka/ownership.py",
        "return self.successor is None and time.monotonic() - self._renewed_at < self.lease_s / 2",
        "return True",
        killed_by="streaming/kafka/test_ownership.py::test_stalled_owner_is_replaced_and_may_not_write_when_it_wakes",
    ),
    Mutant(
        "H5: two processes of one folder run",
        "infra/local/data_lock.py",
        "fcntl.flock(file, operation | fcntl.LOCK_NB)",
        "pass",
        killed_by="infra/local/test_data_lock.py::test_each_worker_of_a_flow_runs_once",
    ),
    Mutant(
        "H5: versions of a replaced learner are served",
        "streaming/state/model_versions.py",
        "return version.owner == self.newest_owner",
        "return True",
        killed_by="streaming/state/test_model_versions.py::test_versions_of_a_replaced_learner_are_left_out",
    ),
    Mutant(
        "H6: a checkpoint of another format is overwritten",
        "streaming/state/checkpoints.py",
        'problem = f"it holds a checkpoint of format {error.found}"',
        "pass",
        killed_by="streaming/state/test_checkpoints_rotation.py::test_checkpoint_of_another_format_is_never_deleted_or_overwritten",
    ),
    Mutant(
        "H7: files are not flushed",
        "model/checkpoint.py",
        "os.fsync(descriptor)",
        "pass",
        killed_by="model/test_checkpoint.py::test_files_are_flushed_to_the_disk_before_the_manifest",
    ),
    Mutant(
        "H7: no checkpoint is kept by age",
        "streaming/state/checkpoints.py",
        "return old[-1:] + oldest_first[len(old) : len(old) + 1]",
        "return []",
        killed_by="streaming/state/test_checkpoints_rotation.py::test_checkpoints_of_ten_minutes_one_hour_and_one_day_ago_are_kept",
    ),
    Mutant(
        "H8: stamps do not follow the append time",
        "streaming/state/title_state.py",
        "stamp=max(item.appended * 1000, before.stamp + 1)",
        "stamp=before.stamp + 1",
        killed_by="streaming/state/test_title_state.py::test_stamps_increase_and_withdrawal_keeps_content_and_launch_time",
    ),
    Mutant(
        "H9: a non-finite step of the ranker is taken",
        "model/signals/ranker.py",
        "if not bool(torch.isfinite(loss.detach() + norm + self.linear_F.grad.sum())):",
        "if False:",
        killed_by="model/signals/test_ranker.py::test_nonfinite_step_is_skipped_and_learning_continues",
    ),
    Mutant(
        "M14: a history of any size is a valid setting",
        "infra/settings.py",
        "le=2000,  # the largest",
        "le=20000,  # the largest",
        killed_by="infra/test_settings.py::test_largest_activity_fits_into_a_kafka_record",
    ),
    Mutant(
        "M14: an activity record may consist of new events",
        "streaming/state/user_state.py",
        "MAX_NEW_FRACTION: Final = 0.5",
        "MAX_NEW_FRACTION: Final = 1.0",
        killed_by="infra/test_settings.py::test_largest_activity_fits_into_a_kafka_record",
    ),
)


if __name__ == "__main__":
    sys.exit(main(TRUST_MUTANTS, __doc__))
