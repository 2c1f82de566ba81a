"""A certificate authority that speaks ACME: Let's Encrypt's own test server, pebble, with its DNS."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path

from .certs import Authority
from .process import HeldPort, eventually

BUNDLE = "/etc/ssl/certs/ca-certificates.crt"


def is_installed() -> bool:
    return all(shutil.which(program) for program in ("pebble", "pebble-challtestsrv", "uacme", "unshare"))


def trusting(authority: Authority) -> tuple[str, ...]:
    """A wrapper that runs a command with the authority as the system's only one: uacme's libcurl
    knows no other way than the system's bundle. Empty where that is not permitted."""
    script = f'mount --bind "{authority.bundle}" {BUNDLE} && exec "$@"'
    user = () if os.geteuid() == 0 else ("--map-root-user",)
    wrapper = ("unshare", *user, "--mount", "sh", "-c", script, "sh")
    tried = subprocess.run([*wrapper, "true"], capture_output=True, check=False)
    return wrapper if tried.returncode == 0 else ()


def answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
        return True
    except OSError:
        return False


class Pebble:
    """Every name is 127.0.0.1 for it; it looks for answers on http_port."""

    def __init__(self, authority: Authority, http_port: int):
        self.folder = Path(tempfile.mkdtemp(prefix="apiproxy-pebble-"))
        self.ports = [HeldPort() for _ in range(5)]
        acme, management, dns, control, tls = (port.number for port in self.ports)
        cert, key = authority.write("localhost", "127.0.0.1", stem="pebble")
        config = {
            "listenAddress": f"127.0.0.1:{acme}",
            "managementListenAddress": f"127.0.0.1:{management}",
            "certificate": str(cert),
            "privateKey": str(key),
            "httpPort": http_port,
            "tlsPort": tls,
        }
        (self.folder / "pebble.json").write_text(json.dumps({"pebble": config}))
        self.url = f"https://localhost:{acme}/dir"
        self.processes = [
            self._run("pebble-challtestsrv", "-dns01", f"127.0.0.1:{dns}", "-management", f"127.0.0.1:{control}",
                      "-defaultIPv4", "127.0.0.1", "-defaultIPv6", "", "-http01", "", "-https01", "", "-tlsalpn01", ""),
            self._run("pebble", "-config", "pebble.json", "-dnsserver", f"127.0.0.1:{dns}"),
        ]
        try:
            eventually(lambda: answers(acme), 10, what="pebble listens")
        except BaseException:
            self.stop()
            raise

    def _run(self, *command: str) -> subprocess.Popen:
        env = {"PATH": os.environ["PATH"], "PEBBLE_VA_NOSLEEP": "1", "PEBBLE_WFE_NONCEREJECT": "0"}
        with open(self.folder / f"{command[0]}.log", "w") as log:
            return subprocess.Popen(command, cwd=self.folder, env=env, stdout=log, stderr=log)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def stop(self):
        for process in self.processes:
            process.kill()
            process.wait()
        for port in self.ports:
            port.release()
        shutil.rmtree(self.folder, ignore_errors=True)
