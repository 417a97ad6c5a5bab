"""The whole system runs during a context and ends with it."""

from pathlib import Path

from infra.local.address_file import ADDRESS_FILE
from infra.local.embedded import redis_answers
from infra.local.session import run_session
from infra.local.supervisor import FLOWS
from infra.monitor.lag import FLOW_TOPICS
from infra.settings import Settings
from tests.support.processes import all_end


def test_session_runs_all_parts_and_stops_them(broker: str, tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, bootstrap_servers="", redis_url="", metrics_port=0)
    with run_session(settings) as session:
        pids = session.flows.pids()
        assert tuple(pids) == FLOWS
        assert session.redis.ping()
        rows = session.lags.read()
        assert {(row.group, row.topic) for row in rows} == {
            (flow, topic) for flow, names in FLOW_TOPICS.items() for topic in names
        }
        assert sum(row.records for row in rows) == 0
        address = session.settings.redis_url
    assert all_end(list(pids.values()))
    assert not redis_answers(address)
    assert not (tmp_path / ADDRESS_FILE).exists()
