"""Redis servers with settings of their own: replicas, Sentinels, TLS."""

import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import quote

from redis import Redis
from redis.exceptions import RedisError

from infra.local.embedded import LOOPBACK, free_port, redis_server
from infra.local.processes import log_tail, spawn, stop

PASSWORD: Final = "hu@sh"
SERVICE: Final = "lists"
TIMEOUT_S: Final = 60.0


class Server(NamedTuple):
    """A running redis-server."""

    process: subprocess.Popen[bytes]
    port: int
    client: Any

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@contextmanager
def run_server(folder: Path, settings: str, *options: str, password: str | None = None) -> Iterator[Server]:
    """Run a redis-server with these lines in its configuration file, on a free port."""
    folder.mkdir(parents=True)
    port, config, log = free_port(), folder / "redis.conf", folder / "redis.log"
    config.write_text(f'port {port}\nbind {LOOPBACK}\ndir "{folder}"\n{settings}\n')
    process = spawn([redis_server(), str(config), *options], log)
    client = Redis(LOOPBACK, port, password=password, decode_responses=True)
    try:
        wait_until(lambda: process.poll() is not None or _answers(client))
        assert process.poll() is None, log_tail(log)
        yield Server(process, port, client)
    finally:
        client.close()
        stop(process)


class SentinelGroup(NamedTuple):
    """A master with one replica, and the Sentinel that watches them."""

    master: Server
    replica: Server
    url: str


@contextmanager
def run_sentinel_group(folder: Path) -> Iterator[SentinelGroup]:
    """Run a master with a password, its replica, and one Sentinel that fails over after a second of silence."""
    login = f'save ""\nrequirepass "{PASSWORD}"\nmasterauth "{PASSWORD}"'
    with ExitStack() as stack:
        master = stack.enter_context(run_server(folder / "master", login, password=PASSWORD))
        follow = f"{login}\nreplicaof {LOOPBACK} {master.port}"
        replica = stack.enter_context(run_server(folder / "replica", follow, password=PASSWORD))
        watch = [
            f"monitor {SERVICE} {LOOPBACK} {master.port} 1", f'auth-pass {SERVICE} "{PASSWORD}"',
            f"down-after-milliseconds {SERVICE} 1000", f"failover-timeout {SERVICE} 5000",
        ]  # fmt: skip
        lines = "\n".join(f"sentinel {line}" for line in watch)
        sentinel = stack.enter_context(run_server(folder / "sentinel", lines, "--sentinel"))
        wait_until(lambda: replica.client.info("replication")["master_link_status"] == "up")
        wait_until(lambda: sentinel.client.sentinel_master(SERVICE)["num-slaves"] == 1)
        dead = free_port()  # the first Sentinel of the address does not answer
        hosts = f"{LOOPBACK}:{dead},{LOOPBACK}:{sentinel.port}"
        yield SentinelGroup(master, replica, f"redis+sentinel://:{quote(PASSWORD)}@{hosts}/{SERVICE}/0")


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline, "the condition does not hold in time"
        time.sleep(0.05)


def _answers(client: Redis) -> bool:
    try:
        return bool(client.ping())
    except RedisError:
        return False
