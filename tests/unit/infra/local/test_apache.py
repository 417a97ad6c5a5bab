"""Apache Kafka from downloaded jars: one complete download, start by class path, and errors that name the remedy."""

import http.server
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Final

import pytest

from infra.errors import ServiceError
from infra.local import apache
from infra.local.apache import ARTIFACTS, CLASSPATH_FILE, kafka_classpath
from infra.local.embedded import LOOPBACK, free_port, kafka_answers, start_kafka

POM: Final = """<project><modelVersion>4.0.0</modelVersion>
<groupId>{0}</groupId><artifactId>{1}</artifactId><version>{2}</version><dependencies>{3}</dependencies></project>"""
DEPENDENCY: Final = """<dependency>
<groupId>{0}</groupId><artifactId>{1}</artifactId><version>{2}</version><scope>{3}</scope></dependency>"""


class _SilentHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Do not log requests."""


@contextmanager
def _maven_server(folder: Path) -> Iterator[str]:
    """Serve `folder` as a Maven repository and yield its URL."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(_SilentHandler, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


def _add(root: Path, group: str, name: str, version: str, jar: bytes, needs: str = "") -> None:
    folder = root / group.replace(".", "/") / name / version
    folder.mkdir(parents=True)
    (folder / f"{name}-{version}.pom").write_text(POM.format(group, name, version, needs))
    (folder / f"{name}-{version}.jar").write_bytes(jar)


def _repository(root: Path) -> None:
    """A small Maven repository of the artifacts. The first one has a runtime dependency and a test dependency."""
    _add(root, "org.other", "run", "1.0", b"a jar")
    needs = DEPENDENCY.format("org.other", "run", "1.0", "runtime")
    needs += DEPENDENCY.format("org.other", "tested-with", "1.0", "test")
    for artifact in ARTIFACTS:
        group, name, _, version, _ = artifact.split(":")
        _add(root, group, name, version, f"the jar {name}".encode(), needs)
        needs = ""


def test_jars_are_downloaded_once_with_dependencies(tmp_path: Path) -> None:
    pytest.importorskip("jgo", reason="the extra [kafka] is not installed")
    _repository(tmp_path / "central")
    with _maven_server(tmp_path / "central") as url:
        jars = kafka_classpath(tmp_path / "jars", url).split(os.pathsep)
    assert sorted(Path(jar).read_bytes() for jar in jars) == [
        b"a jar",
        b"the jar kafka-tools",
        b"the jar kafka_2.13",
        b"the jar slf4j-simple",
    ]
    assert kafka_classpath(tmp_path / "jars", url).split(os.pathsep) == jars  # the server is down: no second download


def test_partial_download_is_replaced(tmp_path: Path) -> None:
    pytest.importorskip("jgo", reason="the extra [kafka] is not installed")
    _repository(tmp_path / "central")
    half = tmp_path / "jars" / "org" / "other" / "run" / "1.0" / "run-1.0.jar"
    half.parent.mkdir(parents=True)
    half.write_bytes(b"a j")
    with _maven_server(tmp_path / "central") as url:
        assert b"a jar" in [Path(jar).read_bytes() for jar in kafka_classpath(tmp_path / "jars", url).split(os.pathsep)]


@pytest.mark.parametrize("missing", ["all", "a jar"])
def test_failed_download_is_an_error_with_remedy(tmp_path: Path, missing: str) -> None:
    pytest.importorskip("jgo", reason="the extra [kafka] is not installed")
    _repository(tmp_path / "central")
    (tmp_path / "central" / "org" / "other" / "run" / "1.0" / "run-1.0.jar").unlink()
    with _maven_server(tmp_path / "central") as url:
        where = url if missing == "a jar" else f"http://127.0.0.1:{free_port()}"
        with pytest.raises(ServiceError, match=r"Cannot download Kafka's jars from http\S+ \(\w+\)\. .*set KAFKA_HOME"):
            kafka_classpath(tmp_path / "jars", where)
    assert not (tmp_path / "jars").exists()


def test_missing_extra_is_an_error_with_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jgo.maven", None)
    with pytest.raises(ServiceError, match=r"pip install -e '.\[kafka\]'.*KAFKA_HOME"):
        kafka_classpath(tmp_path / "jars")


def test_broker_runs_from_downloaded_jars(tmp_path: Path, kafka_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    apache.cache_folder().mkdir(parents=True)
    (apache.cache_folder() / CLASSPATH_FILE).write_text(os.pathsep.join(map(str, (kafka_home / "libs").glob("*.jar"))))
    with start_kafka(tmp_path / "node", broker="apache") as address:
        assert kafka_answers(address)
    assert "Kafka Server started" in (tmp_path / "node" / "kafka.log").read_text()


def test_invalid_java_home_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "none"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    apache.cache_folder().mkdir(parents=True)
    (apache.cache_folder() / CLASSPATH_FILE).write_text("no.jar")
    with pytest.raises(ServiceError, match=r"Cannot run Apache Kafka .*JAVA_HOME"):
        apache.prepare_node(apache.locate_kafka(None), tmp_path, LOOPBACK, (1, 2))


def test_missing_java_is_an_error_with_remedy(
    tmp_path: Path, kafka_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(apache, "find_spec", lambda name: None)
    with pytest.raises(ServiceError, match=r"needs Java 17.*JAVA_HOME.*\[kafka\]"):
        apache.locate_kafka(kafka_home)
