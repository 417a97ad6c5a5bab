"""Files that a command writes at its end: checked before it begins, so that no long run is lost to a wrong path."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from infra.errors import PremiereError


class OutputError(PremiereError):
    """A file cannot be written. The message names the path and the cause."""


def check_writable(*files: Path | None) -> None:
    """Create the folders of these files and check that each can be written; no file is left. Raises OutputError."""
    for file in filter(None, files):
        with output_errors(file):
            file.parent.mkdir(parents=True, exist_ok=True)
            is_new = not file.exists()
            with file.open("ab"):  # keeps what an earlier run wrote
                pass
            if is_new:
                file.unlink()


def check_writable_folder(url: str) -> None:
    """Write a small file to a folder at an fsspec URL, and delete both if they are new. Raises OutputError."""
    import fsspec  # slow: `--help` must not need it

    try:
        storage, folder = fsspec.core.url_to_fs(url)
        is_new, probe = not storage.exists(folder), f"{folder}/.probe"
        storage.makedirs(folder, exist_ok=True)
        storage.pipe_file(probe, b"1\n")
        storage.rm_file(probe)
        if is_new and storage.exists(folder):  # an object store has no empty folders
            storage.rmdir(folder)
    except Exception as error:  # object stores have error classes of their own
        raise OutputError(f"{url} cannot be written: {error}; choose another path.") from error


@contextmanager
def output_errors(file: Path) -> Iterator[None]:
    """Raise OutputError in place of an error of the operating system."""
    try:
        yield
    except OSError as error:
        blocked = "" if error.filename in (None, str(file)) else f" ({error.filename})"
        raise OutputError(
            f"{file} cannot be written: {error.strerror or error}{blocked}; choose another path."
        ) from error
