"""Noticing at once that another process of a run has died, wherever this one is.

A collective tells of a lost peer where it waits for it; whoever compiles, writes or waits in
another way learns nothing. So process 0 keeps one TCP connection to each of the others for the
whole length of the run. The system closes it when a process ends, however that ends: an end of file
without a goodbye is a death, which process 0 passes on by closing all of its own. A process that
hangs keeps its connections; to notice it is the part of jax's heartbeat.
"""

from __future__ import annotations

import atexit
import contextlib
import secrets
import selectors
import socket
import threading
import warnings
from collections.abc import Callable
from typing import Any

_REACH = 5.0  # seconds to wait for a connection
_KEY = "sgdlab/watch"
_GOODBYE = b"."


def watch_peers(
    client: Any,
    address: str,
    index: int,
    on_death: Callable[[], None],
    *,
    timeout: float = 60.0,
) -> None:
    """Watch the other processes of a run until this one ends.

    Process 0 listens on a port that the system chooses and the coordination service tells. Where
    that can't be reached, a warning says so and the heartbeat is all there is.

    Args:
      client: of jax's coordination service.
      address: `HOST:PORT` of that service.
      index: which process this is, from 0.
      on_death: called once, from a thread of its own, when a peer has died.
      timeout: seconds to wait for process 0.
    """
    if index == 0:
        server = _listen()
        token = secrets.token_hex(16)
        client.key_value_set(_KEY, f"{server.getsockname()[1]} {token}")
        watch = _Watch(token.encode(), on_death, server)
    else:
        port, token = client.blocking_key_value_get(_KEY, round(timeout * 1e3)).split()
        host = address.rpartition(":")[0].strip("[]")
        try:
            connection = socket.create_connection((host, int(port)), timeout=_REACH)
            connection.settimeout(None)
            connection.sendall(token.encode())
        except OSError as error:
            warnings.warn(
                f"distributed: port {port} of {host} can't be reached ({error}); the death of "
                "another process may be noticed later",
                stacklevel=2,
            )
            return
        watch = _Watch(token.encode(), on_death)
        watch.add(connection, token.encode())
    atexit.register(watch.end)
    threading.Thread(target=watch.run, name="watch", daemon=True).start()


class _Watch:
    """The connections of this process and what each has said.

    A peer says the token, which makes it one, and at a proper end the goodbye. What says anything
    else has come to this port by chance, and its end means nothing.
    """

    def __init__(
        self, token: bytes, on_death: Callable[[], None], server: socket.socket | None = None
    ) -> None:
        self._token, self._on_death, self._server = token, on_death, server
        self._said: dict[socket.socket, bytes] = {}
        self._selector = selectors.DefaultSelector()
        if server is not None:
            self._selector.register(server, selectors.EVENT_READ)

    def add(self, connection: socket.socket, said: bytes = b"") -> None:
        """Listen to a connection."""
        self._said[connection] = said
        self._selector.register(connection, selectors.EVENT_READ)

    def run(self) -> None:
        """Listen until a peer dies."""
        while not any(self._hear(key.fileobj) for key, _ in self._selector.select()):
            pass
        for connection in list(self._said):
            connection.close()
        self._on_death()

    def end(self) -> None:
        """Say goodbye to all; those that are still there are listened to all the same."""
        for connection in list(self._said):
            with contextlib.suppress(OSError):  # it has ended, properly or not
                connection.send(_GOODBYE)

    def _hear(self, source: Any) -> bool:
        """Whether what has happened at a socket is a peer's death."""
        if source is self._server:
            self.add(source.accept()[0])
            return False
        try:
            new = source.recv(64)
        except OSError:
            new = b""
        said = self._said[source] = self._said[source] + new
        if new and (self._token + _GOODBYE).startswith(said):
            return False
        self._selector.unregister(source)
        del self._said[source]
        source.close()
        return said == self._token


def _listen() -> socket.socket:
    """A port on every address of this host, as the coordination service has it."""
    both = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if both else socket.AF_INET
    return socket.create_server(("", 0), family=family, backlog=1024, dualstack_ipv6=both)
