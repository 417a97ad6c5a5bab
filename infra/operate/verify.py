"""A version made again from an older one and the log: the proof that a version is a function of what was learned.

The same learner reads `activity` from where the older checkpoint stands to where the version stands, and is compared
with the version's checkpoint file by file, by checksum; a version whose checkpoint is gone can be written anew. It
reaches no further back than the log, and no further than the oldest checkpoint that is kept.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any, Final, NamedTuple

from rich.console import Console
from rich.progress import Progress

from infra.errors import PremiereError
from infra.operate.versions import announced, find
from infra.run.learn import check_settings, first_offset, learner_settings, log_settings, numerics
from infra.settings import Settings
from infra.topics import identity
from model import checkpoint
from model.checkpoint import CheckpointError
from model.learner import Learner
from streaming.flows.learn import numerics as made_with
from streaming.kafka.source import read_all
from streaming.records import Version
from streaming.state.log_learner import LogLearner
from streaming.topics import ACTIVITY

Say = Callable[[str], None]


class DeriveError(PremiereError):
    """A version cannot be derived again, or came out another."""


class _Base(NamedTuple):
    """Where to begin: a checkpoint's URL, or the log's beginning where there is none."""

    url: str | None
    name: str
    manifest: Mapping[str, Any]


START: Final = _Base(None, "the log's beginning", {"position": 0, "step": 0})


def rederive(settings: Settings, number: int, start: int | None, to: str | None, say: Say) -> None:
    """Derive version `number` again from version `start`, or the nearest that is kept, and compare; `to`: write it
    there. Raises DeriveError, VersionError."""
    numerics(settings.threads)
    config = settings.kafka()
    versions, log = announced(config), identity(config, [ACTIVITY])
    version = find(versions, number)
    kept = _manifest(version.path)
    if kept is None and to is None:
        raise DeriveError(f"The checkpoint of version {number} is gone: nothing to compare with, so give --to.")
    if to is not None and _whole(to):
        raise DeriveError(f"There is a checkpoint at {to} already: choose another place.")
    if kept is not None and kept.get("log") != log:
        raise DeriveError(f"Version {number} was learned from another log, which is gone: it cannot be derived again.")
    learner = LogLearner(Learner(learner_settings(settings)), log_settings(settings))
    base = _base(settings, version, log) if start is None else _named(start, find(versions, start), version, log)
    _load(learner, base, first_offset(config))
    _read(config, learner, version)
    files = checkpoint.pack(learner.state_dict())
    if to is not None:
        _write(settings, to, learner, {**(kept or {}), **_facts(learner, version, log)})
        say(f"Version {number}, derived again from {base.name}, lies at {to}.")
    if kept is not None:
        _compare(number, base.name, checkpoint.sums(files), kept, say)


def _manifest(url: str) -> dict[str, Any] | None:
    try:
        return checkpoint.read_manifest(url)
    except CheckpointError:
        return None


def _whole(url: str) -> bool:
    try:
        checkpoint.load(url)
    except CheckpointError:
        return False
    return True


def _base(settings: Settings, version: Version, log: str) -> _Base:
    """The nearest older checkpoint of this log, or the log's beginning."""
    for url in reversed(checkpoint.present(settings.checkpoints_url())):
        manifest = _manifest(url)
        if manifest and manifest.get("log") == log and manifest["step"] < version.step:
            return _Base(url, f"the checkpoint of micro-batch {manifest['step']:,}", manifest)
    return START


def _named(number: int, older: Version, version: Version, log: str) -> _Base:
    manifest = _manifest(older.path)
    if manifest is None:
        raise DeriveError(f"The checkpoint of version {number} is gone: choose a kept one (`premiere versions`).")
    if manifest.get("log") != log:
        raise DeriveError(f"Version {number} was learned from another log: choose one of this log.")
    if manifest["step"] >= version.step:
        raise DeriveError(f"Version {number} is not older than the one to derive: choose an older one.")
    return _Base(older.path, f"version {number}", manifest)


def _load(learner: LogLearner, base: _Base, first: int) -> None:
    """The learner as of `base`. Raises DeriveError where the log does not reach back to it."""
    if base.manifest["position"] < first:
        raise DeriveError(
            f"The log begins at offset {first} and {base.name} stands at {base.manifest['position']}: what lies "
            "between was cut off by retention, so the version cannot be derived again."
        )
    if base.url is not None:
        check_settings(base.manifest, learner.learner.settings, base.url)
        try:
            state, _ = checkpoint.load(base.url)
        except CheckpointError as error:
            raise DeriveError(f"{error} Name another with --from.") from None
        learner.load_state_dict(state)


def _read(config: Mapping[str, str], learner: LogLearner, version: Version) -> None:
    """Learn from the log up to where the version stands. Raises DeriveError."""
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("records", total=version.position - learner.position)
        for message in read_all(config, ACTIVITY, {0: learner.position}):
            learner.feed(message)
            progress.update(task, advance=1)
            if learner.position >= version.position:
                break
    if learner.position < version.position:
        raise DeriveError(
            f"The log ends before offset {version.position}, where the version stands: it is not the log that the "
            "version was learned from."
        )
    if (learner.position, learner.batches, learner.learned) != (version.position, version.step, version.learned):
        raise DeriveError(
            f"At offset {learner.position} the learner stands at micro-batch {learner.batches:,} and "
            f"{learner.learned:,} events, the version at {version.step:,} and {version.learned:,}: it was learned "
            "otherwise (on from the weights of another log, past a gap in this one, or by another release)."
        )


def _facts(learner: LogLearner, version: Version, log: str) -> dict[str, Any]:
    """The manifest of a version that was derived again."""
    mrr = learner.rankings["full"].recent()["mrr"]["all"]
    fields = {"step": learner.batches, "position": learner.position, "learned": learner.learned, "mrr": mrr}
    return {**fields, "log": log, "created": version.created, "made": made_with()}


def _write(settings: Settings, to: str, learner: LogLearner, manifest: dict[str, Any]) -> None:
    """Write it; among the learner's own it is pinned first, or rotation would clear it away half written."""
    if to.startswith(f"{settings.checkpoints_url()}/"):
        checkpoint.pin(to)
    checkpoint.save(to, learner.state_dict(), {**manifest, "settings": asdict(learner.learner.settings)})


def _compare(number: int, base: str, sums: Mapping[str, Any], kept: Mapping[str, Any], say: Say) -> None:
    differing = sorted(name for name in {*sums, *kept["files"]} if sums.get(name) != kept["files"].get(name))
    if not differing:
        say(f"Version {number}, derived again from {base}, equals the one that is kept, bit for bit.")
        return
    made, now = kept.get("made"), made_with()
    why = f" (it was made with {made}, this was made with {now})" if made != now else ""
    raise DeriveError(f"Version {number}, derived again from {base}, differs in {', '.join(differing)}{why}.")
