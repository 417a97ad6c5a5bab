"""A reset forgets what the flows keep, all of it, asks first, and leaves alone what is not the project's."""

import json
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from typer.testing import CliRunner

from features.store import open_store, write_title_semantics, write_user_activity
from infra.cli.main import app
from infra.errors import PremiereError, ServiceError, SettingsError
from infra.local import data_lock
from infra.local.embedded import start_redis
from infra.operate.compaction_schedule import run_compact
from infra.operate.reset import reset
from infra.settings import RUNNING, Settings
from streaming.stores.redis_lists import Prediction, RedisSink
from tests.support.feature_rows import title_row, user_row

OTHERS: dict[str, str] = {"someone:else": "1", "premiere": "2", "premier:user:1": "3", "user_id-premiere": "4"}


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[str]:
    """A Redis of its own: a reset forgets everybody's."""
    with start_redis(tmp_path / "redis-server") as url:
        yield url


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A data folder with something of each kind, and what is not ours."""
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
    (data / RUNNING).write_text(json.dumps({"pid": 2**22 + 1}))  # no process has it
    return data


def forget(settings: Settings, answer: bool = True) -> str:
    said: list[str] = []
    reset(settings, lambda what: answer, said.append)
    return "\n".join(said)


def left(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {data_lock.LOCK}


def test_everything_in_the_data_folder_goes_but_fetched_data(folder: Path) -> None:
    said = forget(Settings(data_dir=folder, bootstrap_servers="", redis_url=""))
    assert left(folder) == {"data"}
    assert "recovery stores" in said
    assert "1 file, 0.0 MB" in said
    assert "There is nothing to forget." in forget(Settings(data_dir=folder, bootstrap_servers="", redis_url=""))


def test_nothing_goes_without_a_yes(folder: Path, own_redis: str) -> None:
    Redis.from_url(own_redis).set("premiere:user:1", "x")
    before = left(folder)
    assert "keys in Redis" in forget(Settings(data_dir=folder, bootstrap_servers="", redis_url=own_redis), False)
    assert left(folder) == before
    assert Redis.from_url(own_redis).exists("premiere:user:1") == 1


def test_of_a_named_redis_the_projects_keys_go_and_no_others(tmp_path: Path, own_redis: str) -> None:
    client: Any = Redis.from_url(own_redis)
    sink = RedisSink(own_redis).build_part("predictions", "0", None)
    users = [uuid.uuid4().hex for _ in range(1_200)]  # more than a round trip takes
    sink.write_batch([[Prediction(user, {0: ["a"]}, 1, (0, 1, 0), 1, 0) for user in [*users, None]]])
    store = open_store(own_redis, tmp_path / "state" / "feast")
    write_user_activity(store, [user_row(user, 0, 1, ["t"]) for user in users])
    write_title_semantics(store, [title_row("t")])
    client.mset(OTHERS)
    assert client.dbsize() == 2 * 1_200 + 2 + len(OTHERS)
    said = forget(Settings(data_dir=tmp_path / "state", bootstrap_servers="", redis_url=own_redis))
    assert "2,402 keys, about" in said
    assert {key.decode() for key in client.scan_iter()} == set(OTHERS)


def test_checkpoints_at_a_url_go_and_what_lies_beside_them_stays(tmp_path: Path) -> None:
    bucket = tmp_path / "bucket"
    for name in ("000000000007", "000000000009"):
        (bucket / name).mkdir(parents=True)
        (bucket / name / "manifest.json").write_text("{}")
    (bucket / "notes.txt").write_text("mine")
    said = forget(
        Settings(data_dir=tmp_path / "state", checkpoints=f"file://{bucket}", bootstrap_servers="", redis_url="")
    )
    assert "2 checkpoints" in said
    assert [path.name for path in bucket.iterdir()] == ["notes.txt"]


def test_a_flow_that_runs_forbids_it_and_it_forbids_a_flow(folder: Path) -> None:
    settings = Settings(data_dir=folder, bootstrap_servers="", redis_url="")
    held, other = data_lock.hold(folder), data_lock.hold(folder)
    with pytest.raises(SettingsError, match=r"Flows are running on .*: stop them first"):
        forget(settings)
    for file in (held, other):
        assert file is not None
        file.close()
    with data_lock.alone(folder), pytest.raises(SettingsError, match="being emptied"):
        data_lock.hold(folder)
    (folder / RUNNING).write_text(json.dumps({"pid": os.getpid(), "bootstrap_servers": "x"}))
    with pytest.raises(SettingsError, match="is running: stop it first"):
        forget(settings)
    assert "recovery" in left(folder)


def test_what_could_not_be_removed_is_said_and_a_second_run_finishes(folder: Path) -> None:
    settings = Settings(data_dir=folder, bootstrap_servers="", redis_url="")
    kept = folder / "elsewhere"
    (folder / "feast").rename(kept)
    (folder / "feast").symlink_to(kept)  # a link is not removed in place of what it points to
    with pytest.raises(PremiereError, match="Not everything could be removed: features at"):
        forget(settings)
    assert left(folder) == {"data", "feast", "elsewhere"}
    (folder / "feast").unlink()
    kept.rename(folder / "feast")
    forget(settings)
    assert left(folder) == {"data"}


def test_a_redis_that_is_gone_stops_it_before_anything_goes(folder: Path) -> None:
    with pytest.raises(ServiceError, match=r"Redis at redis://.* does not answer"):
        forget(Settings(data_dir=folder, bootstrap_servers="", redis_url="redis://127.0.0.1:1/0"))
    assert "recovery" in left(folder)


def test_a_password_in_the_checkpoints_address_is_not_shown(folder: Path) -> None:
    settings = Settings(
        data_dir=folder, bootstrap_servers="", redis_url="", checkpoints="ftp://me:hidden@127.0.0.1:1/x"
    )
    with pytest.raises(ServiceError, match=r"ftp://me:\*+@127.0.0.1:1/x") as error:
        forget(settings)
    assert "hidden" not in str(error.value)


def test_a_compaction_does_not_begin_while_all_is_forgotten(folder: Path) -> None:
    settings = Settings(data_dir=folder, bootstrap_servers="", redis_url="")
    with data_lock.alone(folder), pytest.raises(SettingsError, match="being emptied"):
        run_compact(settings, print)


def test_the_command_asks_and_tells_what_stays(folder: Path) -> None:
    env = {"PREMIERE_DATA_DIR": str(folder), "PREMIERE_BOOTSTRAP_SERVERS": "kafka:9092", "REDIS_URL": ""}
    asked = CliRunner().invoke(app, ["reset"], env=env, input="n\n")
    assert "Forget all of it? [y/N]" in asked.output
    assert "The topics at kafka:9092 stay." in asked.output
    assert "recovery" in left(folder)
    assert CliRunner().invoke(app, ["reset", "--yes"], env=env).exit_code == 0
    assert left(folder) == {"data"}
