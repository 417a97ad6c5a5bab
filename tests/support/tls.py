"""Certificates of an authority of the tests, and an end of TLS in front of a server without it."""

import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, NamedTuple

from infra.local.embedded import LOOPBACK

CHUNK_BYTES: Final = 65_536


class Authority(NamedTuple):
    """Files of an authority and of a server certificate that it signed."""

    ca: Path
    certificate: Path
    key: Path


def make_authority(folder: Path, host: str = LOOPBACK) -> Authority:
    """Make an authority and a certificate for `host`, with the tool `openssl`."""
    folder.mkdir(parents=True)
    made = Authority(folder / "ca.pem", folder / "server.pem", folder / "server-key.pem")
    ca_key, extensions = folder / "ca-key.pem", folder / "extensions"
    extensions.write_text(f"subjectAltName={'IP' if host[0].isdigit() else 'DNS'}:{host}\n")
    new = ["req", "-newkey", "rsa:2048", "-nodes"]
    _openssl(*new, "-x509", "-days", "2", "-subj", "/CN=Test authority", "-keyout", ca_key, "-out", made.ca)
    request = folder / "request.pem"
    _openssl(*new, "-subj", f"/CN={host}", "-keyout", made.key, "-out", request)
    _openssl(
        "x509", "-req", "-in", request, "-days", "2", "-CA", made.ca, "-CAkey", ca_key, "-CAcreateserial",
        "-extfile", extensions, "-out", made.certificate,
    )  # fmt: skip
    return made


@contextmanager
def tls_end(authority: Authority, port: int) -> Iterator[int]:
    """Accept TLS connections and forward them to the loopback port `port`; yields the port that accepts."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority.certificate, authority.key)
    with socket.create_server((LOOPBACK, 0)) as listener:
        threading.Thread(target=_accept, args=(listener, context, port), daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


def _accept(listener: socket.socket, context: ssl.SSLContext, port: int) -> None:
    with suppress(OSError):  # the listener is closed
        while True:
            client = listener.accept()[0]
            threading.Thread(target=_serve, args=(client, context, port), daemon=True).start()


def _serve(client: socket.socket, context: ssl.SSLContext, port: int) -> None:
    """Forward one connection until an end closes it. A client that refuses the certificate ends the handshake."""
    with (
        suppress(OSError),
        client,
        context.wrap_socket(client, server_side=True) as tls,
        socket.create_connection((LOOPBACK, port)) as server,
    ):
        threading.Thread(target=_copy, args=(server, tls), daemon=True).start()
        _copy(tls, server)


def _copy(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(CHUNK_BYTES):
            target.sendall(data)
        target.shutdown(socket.SHUT_RDWR)


def _openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)
