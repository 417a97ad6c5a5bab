"""`premiere verify`: recompute a model version from an older checkpoint and the learner log, and compare the bits.

The command proves that a version is a function of its log. A learner is loaded from an older checkpoint and reads
`activity` from that checkpoint's offset to the version's offset, without training on the ranges that the version
skipped. Its state is compared with the version's checkpoint file by file, by checksum. A version whose checkpoint was
removed can be written again. The command needs all records between the two offsets, so retention limits how far back it
can start.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from infra.errors import PremiereError
from infra.learner_settings import set_threads
from infra.operate.versions import find_version
from infra.output_files import check_writable_folder
from infra.progress import Reporter
from infra.run.learn import first_offset
from infra.settings import Settings
from infra.topics import log_identity
from model import checkpoint
from model.checkpoint import CheckpointError
from model.learner import Learner
from streaming.flows.learn import numeric_environment
from streaming.kafka.source import read_all
from streaming.records import Version
from streaming.state.log_learner import LogLearner, restarted
from streaming.state.model_versions import read_versions
from streaming.state.recompute import recompute
from streaming.state.settings_history import all_values, settings_at
from streaming.topics import ACTIVITY

PrintLine = Callable[[str], object]


class VerifyError(PremiereError):
    """A version cannot be recomputed, or the recomputed version differs."""


class _StartPoint(NamedTuple):
    """The state from which the learner log is read."""

    url: str | None  # of the checkpoint; None: an untrained model at the beginning of the log
    name: str  # for messages
    manifest: Mapping[str, Any]


LOG_BEGINNING: Final = _StartPoint(None, "the beginning of the log", {"position": 0, "step": 0})


def verify(settings: Settings, number: int, start: int | None, to: str | None, print_line: PrintLine) -> None:
    """Recompute version `number` and compare it with its checkpoint.

    Starts from version `start`, by default from the closest older checkpoint. With `to`, writes the result to that URL.
    Raises VerifyError, VersionError, OutputError.
    """
    set_threads(settings.threads)
    config = settings.kafka_config()
    versions, log_id = read_versions(config), log_identity(config, [ACTIVITY])
    version = find_version(versions, number)
    expected = _manifest(version.path)
    if expected is None and to is None:
        raise VerifyError(f"The checkpoint of version {number} was removed: use --to to write it again.")
    if to is not None:
        check_writable_folder(to)
        if _is_complete(to):
            raise VerifyError(f"There is already a checkpoint at {to}: choose another location.")
    if expected is not None and expected.get("log") != log_id:
        raise VerifyError(f"Version {number} was learned from a log that no longer exists: it cannot be recomputed.")
    if start is None:
        start_point = _closest(settings, version, log_id)
    else:
        start_point = _from_version(start, find_version(versions, start), version, log_id)
    learner = _load(settings, version, start_point, first_offset(config))
    learner.skip([*learner.skipped, *(one for one in version.skipped if one.start >= learner.position)])
    learner = _learn_until(config, learner, version)
    files = checkpoint.serialize(learner.state_dict())
    if to is not None:
        _write(settings, to, learner, {**(expected or {}), **_manifest_fields(learner, version, log_id)})
        print_line(f"Wrote version {number}, recomputed from {start_point.name}, to {to}.")
    if expected is not None:
        _compare(number, start_point.name, checkpoint.checksums(files), expected)
        print_line(f"Version {number}, recomputed from {start_point.name}, is bit-identical to its checkpoint.")


def _manifest(url: str) -> dict[str, Any] | None:
    try:
        return checkpoint.read_manifest(url)
    except CheckpointError:
        return None


def _is_complete(url: str) -> bool:
    try:
        checkpoint.load(url)
    except CheckpointError:
        return False
    return True


def _closest(settings: Settings, version: Version, log_id: str) -> _StartPoint:
    """The newest checkpoint of this learner log that is older than the version, else the beginning of the log."""
    for url in reversed(checkpoint.list_checkpoints(settings.checkpoints_url())):
        manifest = _manifest(url)
        if manifest and manifest.get("log") == log_id and _leads_to(manifest, version):
            return _StartPoint(url, f"the checkpoint of micro-batch {manifest['step']:,}", manifest)
    return LOG_BEGINNING


def _leads_to(manifest: Mapping[str, Any], version: Version) -> bool:
    """Whether the version was learned from this checkpoint's state, which is false inside a range skipped later."""
    known = {one["end"] for one in manifest.get("skipped", [])}
    is_undone = any(one.start < manifest["position"] and one.end not in known for one in version.skipped)
    return manifest["step"] < version.step and not is_undone


def _from_version(number: int, older: Version, version: Version, log_id: str) -> _StartPoint:
    """The checkpoint of version `number` as the start. Raises VerifyError if it cannot be one."""
    manifest = _manifest(older.path)
    if manifest is None:
        raise VerifyError(f"The checkpoint of version {number} was removed: choose another (`premiere versions`).")
    if manifest.get("log") != log_id:
        raise VerifyError(f"Version {number} was learned from another log: choose a version of the current log.")
    if not _leads_to(manifest, version):
        raise VerifyError(
            f"Version {number} is not older than the version to verify, or was undone: choose an older one."
        )
    return _StartPoint(older.path, f"version {number}", manifest)


def _load(settings: Settings, version: Version, start_point: _StartPoint, first: int) -> LogLearner:
    """The learner at the start, with its settings there. Raises VerifyError if the log does not reach back to it."""
    if start_point.manifest["position"] < first:
        raise VerifyError(
            f"The log begins at offset {first}, after offset {start_point.manifest['position']} of {start_point.name}: "
            "retention deleted records in between, so the version cannot be recomputed."
        )
    try:
        model, log = settings_at(version.settings, start_point.manifest["position"])
    except ValueError as error:
        raise VerifyError(f"The version cannot be recomputed from {start_point.name}: {error}.") from None
    if start_point.url is None:
        return LogLearner(Learner(model), log)
    try:
        state, _ = checkpoint.load(start_point.url)
    except CheckpointError as error:
        raise VerifyError(f"{error} Choose another start with --from.") from None
    return restarted(state, model, log)


def _learn_until(config: Mapping[str, str], learner: LogLearner, version: Version) -> LogLearner:
    """Learn from the learner log up to the version's offset; returns the learner there. Raises VerifyError."""
    start = learner.position
    with Reporter().bar(version.position - start) as bar:
        for current in recompute(learner, read_all(config, ACTIVITY, {0: start}), version):
            learner = current
            bar(learner.next_offset - start)
    if learner.position < version.position:
        raise VerifyError(
            f"The log ends before offset {version.position} of the version: the version was learned from another log."
        )
    if (learner.position, learner.batches, learner.learned) != (version.position, version.step, version.learned):
        raise VerifyError(
            f"At offset {learner.position} the learner has processed {learner.batches:,} micro-batches and "
            f"{learner.learned:,} events, the version {version.step:,} and {version.learned:,}: the version started "
            "from the weights of another log, skipped records lost to retention, or is of another release."
        )
    return learner


def _manifest_fields(learner: LogLearner, version: Version, log_id: str) -> dict[str, Any]:
    """The manifest fields of a recomputed version."""
    mrr = learner.evaluation.rankings["full"].recent()["mrr"]["all"]
    fields = {"step": learner.batches, "position": learner.position, "learned": learner.learned, "mrr": mrr}
    return {**fields, "log": log_id, "created": version.created, "environment": numeric_environment()}


def _write(settings: Settings, to: str, learner: LogLearner, manifest: dict[str, Any]) -> None:
    """Write the checkpoint. In the learner's folder pin it first, else rotation could remove it while it is written.

    Raises VerifyError.
    """
    if to.startswith(f"{settings.checkpoints_url()}/"):
        checkpoint.pin(to)
    try:
        checkpoint.save(
            to, learner.state_dict(), {**manifest, "settings": all_values(learner.learner.settings, learner.settings)}
        )
    except CheckpointError as error:
        raise VerifyError(str(error)) from None


def _compare(number: int, start: str, sums: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """Raises VerifyError, with the files that differ."""
    files = expected["files"]
    differing = sorted(name for name in {*sums, *files} if sums.get(name) != files.get(name))
    if not differing:
        return
    original, current = expected.get("environment"), numeric_environment()
    reason = f" (it was computed with {original}, this run used {current})" if original != current else ""
    raise VerifyError(f"Version {number}, recomputed from {start}, differs in {', '.join(differing)}{reason}.")
