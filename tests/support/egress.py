"""A small forward proxy, as companies have one: CONNECT and absolute-form, remembers what it saw."""

from __future__ import annotations

import base64
import select
import socket

from .process import Closing
from .wire import Connection, ThreadedServer


class EgressProxy(Closing):
    """Sends everything to `forward_to` (host, port), whatever name was asked for.

    With `credential` ("user:password") it answers 407 to those who do not bring it; with
    `refuse` it answers that status to all.
    """

    def __init__(self, forward_to: tuple[str, int], credential: str = "", refuse: int = 0):
        self.forward_to = forward_to
        self.credential = credential
        self.refuse = refuse
        self.seen: list[str] = []
        self.server = ThreadedServer(self._handle)

    @property
    def url(self) -> str:
        return f"http://{self.credential + '@' if self.credential else ''}{self.server.raw.host}"

    def _handle(self, client: Connection):
        head = client.read_head()
        self.seen.append(head.line.decode("latin-1"))
        wanted = "Basic " + base64.b64encode(self.credential.encode()).decode()
        if self.refuse or (self.credential and head.get("proxy-authorization") != wanted):
            status = self.refuse or 407
            client.send(f"HTTP/1.1 {status} No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            return
        with socket.create_connection(self.forward_to) as upstream:
            if head.line.startswith(b"CONNECT "):
                client.send("HTTP/1.1 200 Connection established\r\n\r\n")
            else:
                upstream.sendall(self._origin_form(head))
            if client.buffer:
                upstream.sendall(client.buffer)
            self._pump(client.sock, upstream)

    @staticmethod
    def _origin_form(head) -> bytes:
        method, target, version = head.line.split(b" ")
        path = b"/" + target.split(b"/", 3)[3] if target.count(b"/") > 2 else b"/"
        lines = [b" ".join((method, path, version))]
        lines += [n + b": " + v for n, v in head.without("proxy-authorization", "proxy-connection")]
        return b"\r\n".join(lines) + b"\r\n\r\n"

    @staticmethod
    def _pump(one: socket.socket, other: socket.socket):
        peers = {one: other, other: one}
        one.settimeout(None)
        while True:
            for sock in select.select(list(peers), [], [])[0]:
                data = sock.recv(65536)
                if not data:
                    return
                peers[sock].sendall(data)

    def close(self):
        self.server.close()
