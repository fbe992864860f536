"""Noticing at once that another process of a run has died, wherever this one is.

A collective tells of a lost peer where it waits for it; whoever compiles, writes or waits in
another way learns nothing. So process 0 keeps one TCP connection to each of the others for the
whole length of the run. The system closes it when a process ends, however that ends: an end of file
without a goodbye is a death, which process 0 passes on by closing all of its own. A process that
hangs keeps its connections; to notice it is the part of jax's heartbeat.

The port is open to whoever can reach the coordinator. Who comes says the token, as a whole, and is
welcomed as a peer; until then it is a stranger, whose end means nothing. Strangers have a few
seconds, and there are never many of them: the one that has waited longest makes room.
"""

from __future__ import annotations

import atexit
import contextlib
import hmac
import ipaddress
import secrets
import selectors
import socket
import threading
import time
import warnings
from collections.abc import Callable
from typing import Any

_REACH = 5.0  # seconds to wait for a connection, and to be welcomed
_TRIES = 3
_PATIENCE = 10.0  # seconds in which a stranger may say the token
_STRANGERS = 64  # at once
_KEY = "sgdlab/watch"
_WELCOME, _GOODBYE = b"!", b"."


def watch_peers(
    client: Any,
    address: str,
    index: int,
    on_death: Callable[[], None],
    *,
    timeout: float = 60.0,
) -> None:
    """Watch the other processes of a run until this one ends.

    Process 0 listens where the coordination service does, on a port that the system chooses and the
    service tells. Where that can't be reached, a warning says so and the heartbeat is all there is.

    Args:
      client: of jax's coordination service.
      address: `HOST:PORT` of that service.
      index: which process this is, from 0.
      on_death: called once, from a thread of its own, when a peer has died.
      timeout: seconds to wait for process 0.
    """
    if index == 0:
        server = _listen(find_own_host(address))
        token = secrets.token_hex(16)
        client.key_value_set(_KEY, f"{server.getsockname()[1]} {token}")
        watch = _Watch(token.encode(), on_death, server)
    else:
        port, token = client.blocking_key_value_get(_KEY, round(timeout * 1e3)).split()
        host = _host_of(address)
        try:
            connection = _join(host, int(port), token.encode())
        except OSError as error:
            warnings.warn(
                f"distributed: port {port} of {host} can't be reached ({error}); the death of "
                "another process may be noticed later",
                stacklevel=2,
            )
            return
        watch = _Watch(token.encode(), on_death)
        watch.add_peer(connection)
    atexit.register(watch.end)
    threading.Thread(target=watch.run, name="watch", daemon=True).start()


def find_own_host(address: str) -> str:
    """Which address of this machine is enough to listen on for those who come to the coordinator.

    Args:
      address: `HOST:PORT` of the coordinator, which is this process.

    Returns:
      The host where it is a number of this machine, or `localhost`; else "", which is all of them:
      a name may have another number elsewhere, and a number be translated on the way.
    """
    host = _host_of(address)
    if host == "localhost":
        return "127.0.0.1"
    try:
        ipaddress.ip_address(host)
        _listen(host).close()
    except (ValueError, OSError):
        return ""
    return host


class _Watch:
    """The connections of this process: its peers, those of them that have said goodbye, strangers.

    A peer's end without the goodbye is a death. Nothing that a stranger does ends the watch.
    """

    def __init__(
        self, token: bytes, on_death: Callable[[], None], server: socket.socket | None = None
    ) -> None:
        self._token, self._on_death, self._server = token, on_death, server
        self._peers: dict[socket.socket, bool] = {}  # and whether it has said goodbye
        self._strangers: dict[socket.socket, tuple[bytes, float]] = {}  # said, and until when
        self._selector = selectors.DefaultSelector()
        if server is not None:
            server.setblocking(False)
            self._selector.register(server, selectors.EVENT_READ)

    def add_peer(self, connection: socket.socket) -> None:
        """Listen to one that is known."""
        connection.setblocking(False)
        self._peers[connection] = False
        self._selector.register(connection, selectors.EVENT_READ)

    def run(self) -> None:
        """Listen until a peer dies."""
        while not any(self._hear(key.fileobj) for key, _ in self._selector.select(self._wait())):
            now = time.monotonic()
            for stranger in [each for each, (_, end) in self._strangers.items() if end < now]:
                self._drop(stranger)
        for connection in list(self._peers):
            connection.close()
        self._on_death()

    def end(self) -> None:
        """Say goodbye to all; those that are still there are listened to all the same."""
        for connection in list(self._peers):
            with contextlib.suppress(OSError):  # it has ended, properly or not
                connection.send(_GOODBYE)

    def _wait(self) -> float | None:
        """Seconds until the first stranger has waited long enough."""
        ends = [end for _, end in self._strangers.values()]
        return max(0.0, min(ends) - time.monotonic()) + 0.01 if ends else None

    def _hear(self, source: Any) -> bool:
        """Whether what has happened at a socket is a peer's death."""
        if source is self._server:
            self._accept()
            return False
        if source not in self._peers and source not in self._strangers:
            return False  # it was dropped for another just now
        try:
            new = source.recv(64)
        except BlockingIOError:
            return False
        except OSError:
            new = b""
        if source in self._strangers:
            self._hear_stranger(source, new)
            return False
        if new:
            self._peers[source] |= _GOODBYE in new
            return False
        self._selector.unregister(source)
        source.close()
        return not self._peers.pop(source)

    def _accept(self) -> None:
        assert self._server is not None
        try:
            connection = self._server.accept()[0]
        except OSError:  # it has gone again, or there are too many files: room is made below
            if self._strangers:
                self._drop(next(iter(self._strangers)))
            else:
                time.sleep(0.1)
            return
        connection.setblocking(False)
        self._strangers[connection] = b"", time.monotonic() + _PATIENCE
        self._selector.register(connection, selectors.EVENT_READ)
        if len(self._strangers) > _STRANGERS:
            self._drop(next(iter(self._strangers)))

    def _hear_stranger(self, source: socket.socket, new: bytes) -> None:
        """It is a peer once it has said the token; half of one tells nothing, so it can't guess."""
        before, end = self._strangers[source]
        said, size = before + new, len(self._token)
        if new and len(said) < size:
            self._strangers[source] = said, end
            return
        self._drop(source, close=False)
        if not hmac.compare_digest(said[:size], self._token):
            source.close()
            return
        self.add_peer(source)
        self._peers[source] = _GOODBYE in said[size:]
        with contextlib.suppress(OSError):
            source.send(_WELCOME)

    def _drop(self, stranger: socket.socket, *, close: bool = True) -> None:
        del self._strangers[stranger]
        self._selector.unregister(stranger)
        if close:
            stranger.close()


def _join(host: str, port: int, token: bytes) -> socket.socket:
    """A connection to process 0, which has welcomed this one.

    Raises:
      OSError: there is none to be had.
    """
    for tried in range(1, _TRIES + 1):
        connection = socket.create_connection((host, port), timeout=_REACH)
        try:
            connection.sendall(token)
            if connection.recv(1) == _WELCOME:
                return connection
        except OSError:
            if tried == _TRIES:
                raise
        connection.close()
    raise ConnectionError("who listens there is not process 0")


def _host_of(address: str) -> str:
    return address.rpartition(":")[0].strip("[]")


def _listen(host: str) -> socket.socket:
    """A port that the system chooses, on one address of this machine, or "": on every one."""
    if host:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, 0), family=family, backlog=1024)
    both = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if both else socket.AF_INET
    return socket.create_server(("", 0), family=family, backlog=1024, dualstack_ipv6=both)
