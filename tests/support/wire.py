"""HTTP/1.1 on a socket, byte for byte, for either side of a conversation.

A `Connection` reads and writes exactly what a test says and hides nothing: heads come as raw bytes,
bodies with the framing they had. Broken messages raise `Broken`, a peer that went away `Closed`.
"""

from __future__ import annotations

import select
import socket
import ssl
import struct
import threading
import time
from dataclasses import dataclass, field

from .process import Closing

TIMEOUT = 10.0


class Closed(Exception):
    """The peer ended the connection (how: "fin" or "rst") before what was waited for."""

    def __init__(self, how: str, got: bytes = b""):
        super().__init__(f"closed by {how} after {got[:200]!r}")
        self.how = how
        self.got = got


class Broken(Exception):
    """A message that ended before its framing said so."""

    def __init__(self, why: str, body: bytes = b""):
        super().__init__(f"{why} after {len(body)} body bytes: {body[:80]!r}")
        self.body = body


@dataclass
class Head:
    """A start line and its fields, in order; names keep their case."""

    raw: bytes
    line: bytes
    fields: list[tuple[bytes, bytes]]

    @classmethod
    def parse(cls, raw: bytes) -> "Head":
        lines = raw[:-4].split(b"\r\n")
        fields = []
        for line in lines[1:]:
            name, colon, value = line.partition(b":")
            assert colon, f"field without a colon: {line!r}"
            fields.append((name, value.strip(b" \t")))
        return cls(raw, lines[0], fields)

    def all(self, name: str) -> list[str]:
        wanted = name.lower().encode()
        return [v.decode("latin-1") for n, v in self.fields if n.lower() == wanted]

    def get(self, name: str, default: str | None = None) -> str | None:
        values = self.all(name)
        return values[0] if values else default

    def __contains__(self, name: str) -> bool:
        return bool(self.all(name))

    def without(self, *names: str) -> list[tuple[bytes, bytes]]:
        dropped = {n.lower().encode() for n in names}
        return [(n, v) for n, v in self.fields if n.lower() not in dropped]


@dataclass
class Request:
    head: Head
    body: bytes
    framing: str  # "none", "length" or "chunked"
    at: float = field(default_factory=time.time)

    @property
    def method(self) -> str:
        return self.head.line.split(b" ")[0].decode("latin-1")

    @property
    def target(self) -> str:
        return self.head.line.split(b" ")[1].decode("latin-1")

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]

    @property
    def query(self) -> str:
        return self.target.partition("?")[2]


@dataclass
class Response:
    head: Head
    body: bytes
    framing: str  # "none", "length", "chunked" or "close"
    informational: list[int]

    @property
    def status(self) -> int:
        return int(self.head.line.split(b" ")[1])

    def json(self):
        import json

        return json.loads(self.body)

    def header(self, name: str, default: str | None = None) -> str | None:
        return self.head.get(name, default)


class Connection(Closing):
    """One TCP (or TLS) connection, driven step by step by the test."""

    def __init__(self, sock: socket.socket, timeout: float = TIMEOUT):
        self.sock = sock
        self.sock.settimeout(timeout)
        self.buffer = b""
        self.requests: list[Request] = []

    # -- plumbing

    @property
    def local_port(self) -> int:
        return self.sock.getsockname()[1]

    def set_timeout(self, seconds: float):
        self.sock.settimeout(seconds)

    def send(self, data: bytes | str):
        self.sock.sendall(data.encode("latin-1") if isinstance(data, str) else data)

    def send_pieces(self, data: bytes, size: int = 1):
        """The same bytes in many segments."""
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for start in range(0, len(data), size):
            self.sock.sendall(data[start : start + size])

    def send_until_blocked(self, block: bytes, quiet: float = 0.5, limit: int = 1 << 30) -> int:
        """Sends until nothing more is taken for `quiet` seconds; returns the bytes that went out."""
        sent = 0
        self.sock.setblocking(False)
        try:
            while sent < limit:
                _, writable, _ = select.select([], [self.sock], [], quiet)
                if not writable:
                    return sent
                try:
                    sent += self.sock.send(block[sent % len(block) :])
                except BlockingIOError:
                    continue
            return sent
        finally:
            self.sock.settimeout(TIMEOUT)

    def _receive(self) -> bytes:
        try:
            return self.sock.recv(65536)
        except (ConnectionResetError, BrokenPipeError):
            raise Closed("rst", self.buffer) from None
        except ssl.SSLEOFError:
            raise Closed("fin", self.buffer) from None
        except (TimeoutError, ssl.SSLWantReadError):
            raise TimeoutError(f"nothing came; so far {self.buffer[:300]!r}") from None

    def read_some(self) -> bytes:
        """What is there, at least a byte; b"" at a clean end."""
        if self.buffer:
            data, self.buffer = self.buffer, b""
            return data
        return self._receive()

    def read_until(self, mark: bytes) -> bytes:
        while mark not in self.buffer:
            data = self._receive()
            if not data:
                raise Closed("fin", self.buffer)
            self.buffer += data
        end = self.buffer.index(mark) + len(mark)
        data, self.buffer = self.buffer[:end], self.buffer[end:]
        return data

    def read_exactly(self, count: int) -> bytes:
        parts = []
        missing = count
        while missing:
            try:
                data = self.read_some()
            except Closed as end:
                end.got = b"".join(parts)
                raise
            if not data:
                raise Closed("fin", b"".join(parts))
            parts.append(data[:missing])
            self.buffer = data[missing:]
            missing -= len(parts[-1])
        return b"".join(parts)

    def read_to_end(self) -> bytes:
        parts = []
        while data := self.read_some():
            parts.append(data)
        return b"".join(parts)

    def wait_end(self, seconds: float = TIMEOUT) -> str:
        """Reads and drops until the peer ends the connection: "fin" or "rst"."""
        deadline = time.monotonic() + seconds
        try:
            while True:
                left = deadline - time.monotonic()
                if left <= 0:
                    raise TimeoutError(f"still open after {seconds} s")
                self.sock.settimeout(left)
                if not self.read_some():
                    return "fin"
        except Closed as end:
            return end.how
        finally:
            self.sock.settimeout(TIMEOUT)

    def silent(self, seconds: float) -> bool:
        """True if nothing arrives, no end either, for that long."""
        if self.buffer:
            return False
        readable, _, _ = select.select([self.sock], [], [], seconds)
        return not readable

    def half_close(self):
        self.sock.shutdown(socket.SHUT_WR)

    def close(self):
        self.sock.close()

    def cut(self):
        """Ends the connection under a thread that reads from it; closing is that thread's part.

        (A close from here would free the descriptor's number for the next socket while that thread
        still uses it. SSLSocket's own shutdown would drop its TLS state.)
        """
        try:
            socket.socket.shutdown(self.sock, socket.SHUT_RDWR)
        except OSError:
            pass

    def farewell(self):
        """Ends TLS (close_notify), not the connection, and waits for no answer."""
        self.sock.setblocking(False)
        try:
            self.sock.unwrap()
        except (ssl.SSLError, ConnectionError):
            pass

    def reset(self):
        """Ends the connection with RST."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    # -- messages

    def read_head(self) -> Head:
        return Head.parse(self.read_until(b"\r\n\r\n"))

    def read_chunk(self) -> bytes:
        """The data of one chunk; b"" for the last one (its trailers are read and dropped)."""
        size = int(self.read_until(b"\r\n")[:-2].split(b";")[0], 16)
        if size == 0:
            while self.read_until(b"\r\n") != b"\r\n":
                pass
            return b""
        data = self.read_exactly(size + 2)
        assert data.endswith(b"\r\n"), f"chunk without its end: {data[-20:]!r}"
        return data[:-2]

    def read_chunks(self) -> bytes:
        parts = []
        try:
            while data := self.read_chunk():
                parts.append(data)
        except Closed as end:
            raise Broken(f"chunked body cut by {end.how}", b"".join(parts) + end.got) from None
        return b"".join(parts)

    def _read_length(self, length: int) -> bytes:
        try:
            return self.read_exactly(length)
        except Closed as end:
            raise Broken(f"body of {length} cut by {end.how}", end.got) from None

    def _read_close(self) -> bytes:
        parts = []
        try:
            while data := self.read_some():
                parts.append(data)
        except Closed as end:
            raise Broken(f"body cut by {end.how}", b"".join(parts)) from None
        return b"".join(parts)

    def read_request(self) -> Request:
        head = self.read_head()
        body, framing = self.read_request_body(head)
        request = Request(head, body, framing)
        self.requests.append(request)
        return request

    def read_request_body(self, head: Head) -> tuple[bytes, str]:
        if head.get("transfer-encoding"):
            return self.read_chunks(), "chunked"
        if head.get("content-length") is not None:
            return self._read_length(int(head.get("content-length"))), "length"
        return b"", "none"

    def read_response_head(self) -> tuple[Head, list[int]]:
        """The first final head, and the 1xx before it."""
        informational = []
        while True:
            head = self.read_head()
            status = int(head.line.split(b" ")[1])
            if status >= 200 or status == 101:
                return head, informational
            informational.append(status)

    def read_response(self, method: str = "GET") -> Response:
        head, informational = self.read_response_head()
        status = int(head.line.split(b" ")[1])
        if method == "HEAD" or status in (101, 204, 304) or (method == "CONNECT" and status == 200):
            return Response(head, b"", "none", informational)
        if head.get("transfer-encoding"):
            return Response(head, self.read_chunks(), "chunked", informational)
        if head.get("content-length") is not None:
            body = self._read_length(int(head.get("content-length")))
            return Response(head, body, "length", informational)
        return Response(head, self._read_close(), "close", informational)


class RawClient(Connection):
    """A client's connection."""

    def __init__(
        self,
        port: int,
        host: str = "127.0.0.1",
        tls: ssl.SSLContext | None = None,
        server_name: str = "localhost",
        receive_buffer: int = 0,
        timeout: float = TIMEOUT,
    ):
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        if receive_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        sock.settimeout(timeout)
        try:
            sock.connect((host, port))
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if tls:
                sock = tls.wrap_socket(sock, server_hostname=server_name)
        except BaseException:
            sock.close()
            raise
        super().__init__(sock, timeout)

    def request(
        self,
        method: str,
        target: str,
        headers: list[tuple[str, str]] | dict[str, str] = (),
        body: bytes | str | None = None,
    ) -> Response:
        self.send(request_bytes(method, target, headers, body))
        return self.read_response(method)


def request_bytes(method, target, headers=(), body=None, version="HTTP/1.1") -> bytes:
    """A request with a Host (unless given) and, with a body, its Content-Length."""
    fields = list(headers.items()) if isinstance(headers, dict) else list(headers)
    names = {name.lower() for name, _ in fields}
    if "host" not in names:
        fields.insert(0, ("Host", "gateway.test"))
    payload = body.encode() if isinstance(body, str) else body
    if payload is not None and not names & {"content-length", "transfer-encoding"}:
        fields.append(("Content-Length", str(len(payload))))
    head = f"{method} {target} {version}\r\n" + "".join(f"{n}: {v}\r\n" for n, v in fields) + "\r\n"
    return head.encode("latin-1") + (payload or b"")


def chunked(*parts: bytes) -> bytes:
    """The parts as chunks, with the last one."""
    return b"".join(b"%x\r\n%s\r\n" % (len(p), p) for p in parts) + b"0\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


class RawServer(Closing):
    """A listening socket whose connections the test drives itself: `conn = server.accept()`."""

    def __init__(self, tls: ssl.SSLContext | None = None, backlog: int = 256, send_buffer: int = 0, receive_buffer: int = 0):
        self.listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        if send_buffer:
            self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
        if receive_buffer:
            self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.listener.bind(("127.0.0.1", 0))
        self.listener.listen(backlog)
        self.tls = tls
        self.connections: list[Connection] = []

    @property
    def port(self) -> int:
        return self.listener.getsockname()[1]

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://{'localhost' if self.tls else '127.0.0.1'}:{self.port}"

    def accept(self, timeout: float = TIMEOUT) -> Connection:
        self.listener.settimeout(timeout)
        sock, _ = self.listener.accept()
        sock.settimeout(timeout)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self.tls:
            sock = self.tls.wrap_socket(sock, server_side=True)
        connection = Connection(sock)
        self.connections.append(connection)
        return connection

    def pending(self, seconds: float = 0) -> bool:
        """True if a connection waits to be accepted."""
        return bool(select.select([self.listener], [], [], seconds)[0])

    def first_head(self) -> Head:
        """The head that comes first on whichever connection brings one."""
        waiting: list[Connection] = []
        deadline = time.monotonic() + TIMEOUT
        while time.monotonic() < deadline:
            sockets = [self.listener] + [c.sock for c in waiting]
            for sock in select.select(sockets, [], [], 1)[0]:
                if sock is self.listener:
                    waiting.append(self.accept())
                    continue
                connection = next(c for c in waiting if c.sock is sock)
                try:
                    head = connection.read_head()
                except Closed as end:
                    assert not end.got, f"part of a request came: {end.got!r}"
                    waiting.remove(connection)
                    continue
                self.last = connection
                return head
        raise TimeoutError("no request came")

    def close(self):
        for connection in self.connections:
            connection.close()
        self.listener.close()


class ThreadedServer:
    """A RawServer with a thread for each connection, which runs `talk(connection)` and then closes."""

    def __init__(self, talk, tls: ssl.SSLContext | None = None):
        self.talk = talk
        self.tls = tls
        self.raw = RawServer(backlog=1024)
        self.threads = [threading.Thread(target=self._serve, daemon=True)]
        self.threads[0].start()

    def _serve(self):
        while True:
            try:
                connection = self.raw.accept(timeout=86400)
            except OSError:
                return
            thread = threading.Thread(target=self._run, args=(connection,), daemon=True)
            self.threads.append(thread)
            thread.start()

    def _run(self, connection: Connection):
        try:
            connection.set_timeout(120)
            if self.tls:
                connection.sock = self.tls.wrap_socket(connection.sock, server_side=True)
            self.talk(connection)
        except (Closed, Broken, OSError, ValueError):
            pass
        finally:
            connection.close()

    def close(self):
        self.raw.listener.shutdown(socket.SHUT_RDWR)
        self.threads[0].join(5)
        for connection in self.raw.connections:
            connection.cut()
        for thread in self.threads:
            thread.join(5)
        self.raw.close()


def kernel_queues(*ports: int) -> dict[tuple[int, int], tuple[int, int]]:
    """(local port, remote port) -> (bytes to send, bytes to read) of TCP sockets on these ports."""
    queues = {}
    with open("/proc/net/tcp", encoding="ascii") as table:
        next(table)
        for row in table:
            columns = row.split()
            local, remote = int(columns[1].split(":")[1], 16), int(columns[2].split(":")[1], 16)
            if local in ports or remote in ports:
                to_send, to_read = columns[4].split(":")
                queues[local, remote] = (int(to_send, 16), int(to_read, 16))
    return queues
