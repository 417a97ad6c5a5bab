"""A reset deletes all state of the project, after a confirmation, and nothing else."""

import json
import re
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from features.store import open_store, write_title_semantics, write_user_activity
from infra.errors import PremiereError, ServiceError, SettingsError
from infra.local import data_lock
from infra.local.address_file import ADDRESS_FILE, write_addresses
from infra.local.embedded import start_redis
from infra.operate.reset import delete_state, kept_state
from infra.settings import Settings
from streaming.stores.redis_lists import Prediction, RedisSink, WithdrawnTitles
from streaming.topics import topics
from tests.support.feature_rows import title_row, user_row

FOREIGN_KEYS: dict[str, str] = {"someone:else": "1", "premiere": "2", "premier:user:1": "3", "user_id-premiere": "4"}


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[str]:
    """A Redis of its own, since a reset deletes the keys of all tests."""
    with start_redis(tmp_path / "redis-server") as url:
        yield url


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A data folder with each kind of state, and a downloaded dataset."""
    data = tmp_path / "state"
    for name in (
        "recovery/features/x",
        "checkpoints/000000000007",
        "feast/offline/user_activity",
        "kafka/data",
        "logs",
    ):
        (data / name).mkdir(parents=True)
        (data / name / "file").write_bytes(b"x" * 1000)
    (data / "data" / "ml-100k").mkdir(parents=True)
    (data / ADDRESS_FILE).write_text(json.dumps({"pid": 2**22 + 1}))  # no process has it
    return data


def reset(settings: Settings, answer: bool = True) -> str:
    """The output."""
    lines: list[str] = []
    delete_state(settings, lambda question: answer, lines.append)
    return "\n".join(lines)


def remaining(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {data_lock.LOCK_FILE}


def test_data_folder_is_deleted_except_datasets(folder: Path) -> None:
    output = reset(Settings(data_dir=folder, bootstrap_servers="", redis_url=""))
    assert remaining(folder) == {"data"}
    assert "recovery stores" in output
    assert "1 file, 0.0 MB" in output
    assert "There is nothing to delete." in reset(Settings(data_dir=folder, bootstrap_servers="", redis_url=""))


def test_nothing_is_deleted_without_confirmation(folder: Path, own_redis: str) -> None:
    Redis.from_url(own_redis).set("premiere:user:1", "x")
    before = remaining(folder)
    assert "keys in Redis" in reset(Settings(data_dir=folder, bootstrap_servers="", redis_url=own_redis), False)
    assert remaining(folder) == before
    assert Redis.from_url(own_redis).exists("premiere:user:1") == 1


def test_only_project_keys_of_external_redis_are_deleted(tmp_path: Path, own_redis: str) -> None:
    client: Any = Redis.from_url(own_redis)
    sink = RedisSink(own_redis).build_part("predictions", "0", None)
    users = [uuid.uuid4().hex for _ in range(1_200)]  # more than one batch
    sink.write_batch([[Prediction(user, {0: ["a"]}, 1, (0, 0, 1, 0), 1, 0) for user in [*users, None]]])
    store = open_store(own_redis, tmp_path / "state" / "feast")
    write_user_activity(store, [user_row(user, 0, 1, ["t"]) for user in users])
    write_title_semantics(store, [title_row("t")])
    client.mset(FOREIGN_KEYS)
    assert client.dbsize() == 2 * 1_200 + 2 + len(FOREIGN_KEYS)
    output = reset(Settings(data_dir=tmp_path / "state", bootstrap_servers="", redis_url=own_redis))
    assert "2,402 keys, about" in output
    assert {key.decode() for key in client.scan_iter()} == set(FOREIGN_KEYS)


def test_keys_of_other_deployments_are_kept(tmp_path: Path, own_redis: str) -> None:
    prefixes = ("", "staging", "x_staging", "x_premiere", "staging_premiere")
    client: Any = Redis.from_url(own_redis)
    found: dict[str, set[bytes]] = {}
    for prefix in prefixes:
        namespace, before = Settings(prefix=prefix).namespace, set(client.scan_iter())
        sink = RedisSink(own_redis, namespace=namespace).build_part("predictions", "0", None)
        sink.write_batch([[Prediction("u", {0: ["a"]}, 1, (0, 0, 1, 0), 1, 0), WithdrawnTitles(frozenset({"w"}), 1)]])
        store = open_store(own_redis, tmp_path / namespace / "feast", namespace)
        write_user_activity(store, [user_row("u_premiere", 0, 1, ["t"])])
        write_title_semantics(store, [title_row("staging")])
        found[prefix] = set(client.scan_iter()) - before
        assert len(found[prefix]) == 5
    for prefix in ("staging", ""):
        reset(Settings(data_dir=tmp_path / "none" / prefix, prefix=prefix, bootstrap_servers="", redis_url=own_redis))
        del found[prefix]
        assert set(client.scan_iter()) == set().union(*found.values())


def test_only_checkpoints_at_url_are_deleted(tmp_path: Path) -> None:
    bucket = tmp_path / "bucket"
    for name in ("000000000007", "000000000009"):
        (bucket / name).mkdir(parents=True)
        (bucket / name / "manifest.json").write_text("{}")
    (bucket / "notes.txt").write_text("mine")
    output = reset(
        Settings(data_dir=tmp_path / "state", checkpoints=f"file://{bucket}", bootstrap_servers="", redis_url="")
    )
    assert "2 checkpoints" in output
    assert [path.name for path in bucket.iterdir()] == ["notes.txt"]


def test_reset_is_refused_while_flows_run(folder: Path) -> None:
    settings = Settings(data_dir=folder, bootstrap_servers="", redis_url="")
    held, other = data_lock.hold_shared(folder), data_lock.hold_shared(folder)
    with pytest.raises(SettingsError, match="Flows are running on"):
        reset(settings)
    for file in (held, other):
        assert file is not None
        file.close()
    running = write_addresses(settings.model_copy(update={"bootstrap_servers": "x"}))
    with running, pytest.raises(SettingsError, match="is running"):
        reset(settings)
    assert "recovery" in remaining(folder)


def test_failed_part_is_reported_and_next_run_completes(folder: Path) -> None:
    settings = Settings(data_dir=folder, bootstrap_servers="", redis_url="")
    kept = folder / "elsewhere"
    (folder / "feast").rename(kept)
    (folder / "feast").symlink_to(kept)  # rmtree refuses a link
    with pytest.raises(PremiereError, match="Not deleted: features at"):
        reset(settings)
    assert remaining(folder) == {"data", "feast", "elsewhere"}
    (folder / "feast").unlink()
    kept.rename(folder / "feast")
    reset(settings)
    assert remaining(folder) == {"data"}


def test_unreachable_redis_prevents_reset(folder: Path) -> None:
    with pytest.raises(ServiceError, match=r"Redis at redis://.* does not answer"):
        reset(Settings(data_dir=folder, bootstrap_servers="", redis_url="redis://127.0.0.1:1/0"))
    assert "recovery" in remaining(folder)


def test_password_in_checkpoint_url_is_masked(folder: Path) -> None:
    settings = Settings(
        data_dir=folder, bootstrap_servers="", redis_url="", checkpoints="ftp://me:hidden@127.0.0.1:1/x"
    )
    with pytest.raises(ServiceError, match=r"ftp://me:\*+@127.0.0.1:1/x") as error:
        reset(settings)
    assert "hidden" not in str(error.value)


def test_kept_topics_are_named_with_the_command_that_deletes_them() -> None:
    staging = kept_state(Settings(bootstrap_servers="kafka:9092", prefix="staging"))
    assert {f"staging.{topic.name}" for topic in topics()} <= set(re.findall(r"[a-z.-]+", staging))
    text = kept_state(Settings(bootstrap_servers="kafka:9092"))
    assert "--bootstrap-server kafka:9092 --delete" in text
    assert {topic.name for topic in topics()} <= set(re.findall(r"[a-z]+(?:-[a-z]+)*", text))
    assert "topics" not in kept_state(Settings(bootstrap_servers=""))
