"""A path that cannot be written is found before a run; a path that can be written is left as it was."""

from pathlib import Path

import pytest

from infra.output_files import OutputError, check_writable, check_writable_folder, output_errors


def test_folders_are_created_and_nothing_else_stays(tmp_path: Path) -> None:
    check_writable(tmp_path / "a" / "b" / "report.json", None, tmp_path / "figure.png")
    assert {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")} == {"a", "a/b"}


def test_existing_file_is_kept(tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text("{}")
    check_writable(tmp_path / "report.json")
    assert (tmp_path / "report.json").read_text() == "{}"


def test_path_that_is_a_folder_or_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=f"{tmp_path} cannot be written: Is a directory; choose another path."):
        check_writable(tmp_path)
    for path in (tmp_path / "file" / "r.json", tmp_path / "file" / "more" / "r.json"):
        with pytest.raises(OutputError, match=f"{path} cannot be written: "):
            check_writable(path)


def test_error_while_writing_is_one_sentence(tmp_path: Path) -> None:
    file = tmp_path / "gone" / "r.json"
    with pytest.raises(OutputError, match=f"{file} cannot be written: No such file or directory"), output_errors(file):
        file.write_text("x")


def test_folder_at_a_url_is_checked_and_left_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    for url in (f"{tmp_path}/old", f"file://{tmp_path}/new", "memory://here"):
        check_writable_folder(url)
    assert [path.name for path in tmp_path.rglob("*")] == ["old"]


@pytest.mark.parametrize("url", ["{}/file/new", "nothing://here/new"])
def test_url_that_cannot_be_written_is_one_sentence(tmp_path: Path, url: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=f"^{url.format(tmp_path)} cannot be written: [^\n]*$"):
        check_writable_folder(url.format(tmp_path))
