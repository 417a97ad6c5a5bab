"""Lists and features reach a Redis through TLS with a certificate of an authority of one's own."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

import features.feast_import  # noqa: F401

# isort: split
from feast import FeatureStore

from features.redis_address import connect
from features.store import open_store, write_user_activity
from infra.doctor.redis_checks import redis_findings
from infra.local.embedded import LOOPBACK
from infra.settings import Settings
from streaming.stores.feast_online import FeastSink
from streaming.stores.list_client import read
from streaming.stores.redis_lists import Prediction, RedisSink
from streaming.stores.retry import RedisRefusedError
from tests.support.feature_rows import user_row
from tests.support.redis_servers import run_server
from tests.support.tls import Authority, make_authority, tls_end

LISTS = Prediction("tls-user", {0: ["a"]}, version=0, revision=(1, 1, 0, 0), events=1, event_ms=0)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return make_authority(tmp_path_factory.mktemp("tls") / "own")


@pytest.fixture(scope="module")
def tls_port(authority: Authority, redis_url: str) -> Iterator[int]:
    with tls_end(authority, urlsplit(redis_url).port or 6379) as port:
        yield port


def url_of(port: int, ca: Path | None, host: str = LOOPBACK) -> str:
    return f"rediss://{host}:{port}/0" + (f"?ssl_ca_certs={ca}" if ca else "")


def check(url: str, folder: Path) -> None:
    """Write a list and a row, and read them as applications do."""
    partition = RedisSink(url).build_part("lists", "0", None)
    partition.write_batch([[LISTS]])
    write_user_activity(open_store(url, folder), [user_row("tls-user", 0, 1, ["a"])])
    with closing(connect(url)) as client:
        assert read(client, "tls-user") == ["a"]
    plain: Any = FeatureStore(repo_path=str(folder))
    found = plain.get_online_features(["user_activity:recent_titles"], [{"user_id": "tls-user"}]).to_dict()
    assert found["recent_titles"] == [["a"]]


def test_lists_and_features_go_through_tls(authority: Authority, tls_port: int, tmp_path: Path) -> None:
    check(url_of(tls_port, authority.ca), tmp_path / "feast")


def test_redis_with_its_own_tls(authority: Authority, tmp_path: Path) -> None:
    """The Redis of the wheel is built without TLS; REDIS_SERVER may name one with it."""
    files = f"tls-cert-file {authority.certificate}\ntls-key-file {authority.key}\ntls-ca-cert-file {authority.ca}"
    try:
        with run_server(tmp_path / "redis", f'save ""\ntls-auth-clients no\n{files}') as server:
            server.client.config_set("port", 0)
            server.client.config_set("tls-port", server.port)
            check(url_of(server.port, authority.ca), tmp_path / "feast")
    except AssertionError as error:
        if "Bad directive" not in str(error):
            raise
        pytest.skip("this redis-server is built without TLS: REDIS_SERVER may name another")


CASES = ("other authority", "authority of the system", "no file", "no certificate", "other host")


@pytest.mark.parametrize("case", CASES)
def test_invalid_certificate_is_one_sentence_at_once(
    authority: Authority, tls_port: int, tmp_path: Path, case: str
) -> None:
    (tmp_path / "text").write_text("no certificate")
    url = {
        "other authority": url_of(tls_port, make_authority(tmp_path / "other").ca),
        "authority of the system": url_of(tls_port, None),
        "no file": url_of(tls_port, tmp_path / "missing.pem"),
        "no certificate": url_of(tls_port, tmp_path / "text"),
        "other host": url_of(tls_port, authority.ca, "localhost"),  # the certificate is for 127.0.0.1
    }[case]
    with pytest.raises(RedisRefusedError, match="ssl_ca_certs in PREMIERE_REDIS_URL"):
        RedisSink(url, max_outage_s=0).build_part("lists", "0", None).write_batch([[LISTS]])
    store = open_store(url, tmp_path / "feast")
    sink = FeastSink(lambda rows: write_user_activity(store, rows)).build_part("rows", "p000", None)
    with pytest.raises(RedisRefusedError, match="ssl_ca_certs in PREMIERE_REDIS_URL"):
        sink.write_batch([[user_row("tls-user", 0, 1, ["a"])]])
    (found,) = redis_findings(Settings(data_dir=tmp_path, bootstrap_servers="", redis_url=url))
    assert found.level == "error"
    assert "ssl_ca_certs" in found.remedy
