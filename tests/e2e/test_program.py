"""The program: options, settings, files, signals."""

from __future__ import annotations

import configparser
import json
import os
import re
import signal
import socket
import stat
import subprocess
import time
from pathlib import Path

import pytest

from support.gateway import TOKEN, Gateway, binary, clean_env, run_once
from support.process import HeldPort, children, command_name, eventually, is_running
from support.wire import RawClient, RawServer, request_bytes

SETTINGS = [
    ("server", "listen", "API_PROXY_LISTEN", "0.0.0.0:8000"),
    ("server", "ops_listen", "API_PROXY_OPS_LISTEN", ""),
    ("server", "workers", "API_PROXY_WORKERS", "0"),
    ("server", "max_connections", "API_PROXY_MAX_CONNECTIONS", "0"),
    ("server", "drain_seconds", "API_PROXY_DRAIN_SECONDS", "30"),
    ("server", "header_timeout_seconds", "API_PROXY_HEADER_TIMEOUT_SECONDS", "30"),
    ("server", "idle_timeout_seconds", "API_PROXY_IDLE_TIMEOUT_SECONDS", "75"),
    ("server", "data_dir", "API_PROXY_DATA_DIR", "./data"),
    ("server", "cors_origins", "API_PROXY_CORS_ORIGINS", ""),
    ("server", "public_stats", "API_PROXY_PUBLIC_STATS", "on"),
    ("redis", "url", "API_PROXY_REDIS_URL", ""),
    ("admin", "token", "ADMIN_TOKEN", ""),
    ("auth", "jwt_secret", "API_PROXY_JWT_SECRET", ""),
    ("auth", "token_ttl_seconds", "API_PROXY_TOKEN_TTL_SECONDS", "3600"),
    ("auth", "login_cache_seconds", "API_PROXY_LOGIN_CACHE_SECONDS", "60"),
    ("secrets", "master_key", "API_PROXY_MASTER_KEY", ""),
    ("limits", "on_redis_failure", "API_PROXY_ON_REDIS_FAILURE", "local"),
    ("stats", "enabled", "API_PROXY_STATS", "on"),
    ("log", "level", "API_PROXY_LOG_LEVEL", "info"),
    ("log", "format", "API_PROXY_LOG_FORMAT", "text"),
    ("log", "access", "API_PROXY_ACCESS_LOG", "off"),
    ("tls", "enabled", "API_PROXY_TLS", "off"),
    ("tls", "cert", "API_PROXY_TLS_CERT", ""),
    ("tls", "key", "API_PROXY_TLS_KEY", ""),
    ("tls", "self_signed", "API_PROXY_TLS_SELF_SIGNED", "off"),
    ("acme", "enabled", None, "off"),
    ("acme", "domains", None, ""),
    ("acme", "email", None, ""),
    ("acme", "directory_url", None, None),
    ("acme", "http_listen", None, None),
    ("bootstrap", "file", "API_PROXY_BOOTSTRAP", ""),
]
SECRETS = {
    ("admin", "token"): ("ADMIN_TOKEN", "a-secret-admin-token-0123456789"),
    ("auth", "jwt_secret"): ("API_PROXY_JWT_SECRET", "a-secret-of-at-least-32-characters!!"),
    ("secrets", "master_key"): ("API_PROXY_MASTER_KEY", "0123456789abcdef" * 4),
}


def printed(result) -> configparser.ConfigParser:
    assert result.returncode == 0, result.stderr
    parser = configparser.ConfigParser(interpolation=None, inline_comment_prefixes=(";",))
    parser.read_string(result.stdout)
    return parser


def in_force(tmp_path, section, key, *arguments, **env) -> str:
    return printed(run_once("--print-config", *arguments, cwd=tmp_path, **env))[section][key]


# -- options


def test_help_names_every_setting(tmp_path):
    result = run_once("--help", cwd=tmp_path)
    assert result.returncode == 0
    for option in ("--config", "--check", "--print-config", "--version", "--help"):
        assert option in result.stdout
    for section, key, env, _ in SETTINGS:
        assert key in result.stdout, f"{section}.{key}"
        if env:
            assert env in result.stdout


def test_version(tmp_path):
    result = run_once("--version", cwd=tmp_path)
    assert result.returncode == 0 and re.search(r"\d+\.\d+", result.stdout)


@pytest.mark.parametrize("arguments", [["--nonsense"], ["-z"], ["stray"], ["--config"]])
def test_bad_options_are_refused(tmp_path, arguments):
    result = run_once(*arguments, cwd=tmp_path)
    assert result.returncode != 0 and result.stderr and not result.stdout


def test_check_is_content_with_nothing(tmp_path):
    assert run_once("--check", cwd=tmp_path).returncode == 0
    assert list(tmp_path.iterdir()) == [], "a check leaves nothing behind"


def test_print_config_shows_every_default(tmp_path):
    config = printed(run_once("--print-config", cwd=tmp_path))
    for section, key, _, default in SETTINGS:
        assert key in config[section], f"{section}.{key}"
        if default is not None:
            assert config[section][key] == default, f"{section}.{key}"


def test_print_config_can_be_read_again(tmp_path):
    text = run_once("--print-config", cwd=tmp_path, API_PROXY_DRAIN_SECONDS="7").stdout
    (tmp_path / "again.ini").write_text(text)
    assert run_once("--check", "--config", "again.ini", cwd=tmp_path).returncode == 0
    assert in_force(tmp_path, "server", "drain_seconds", "--config", "again.ini") == "7"


@pytest.mark.parametrize("section,key", SECRETS)
def test_print_config_hides_secrets(tmp_path, section, key):
    env, value = SECRETS[section, key]
    result = run_once("--print-config", cwd=tmp_path, **{env: value})
    assert printed(result)[section][key] == "***"
    assert value not in result.stdout + result.stderr


def test_print_config_hides_the_password_of_redis(tmp_path):
    result = run_once("--print-config", cwd=tmp_path, API_PROXY_REDIS_URL="redis://user:hidden-pw@h:6379/1")
    assert result.returncode == 0
    assert "hidden-pw" not in result.stdout and "***" in result.stdout


# -- where settings come from


@pytest.mark.parametrize("section,key,env,default", [s for s in SETTINGS if s[1] in ("drain_seconds", "login_cache_seconds", "max_connections")])
def test_first_wins(tmp_path, section, key, env, default):
    assert in_force(tmp_path, section, key) == default
    (tmp_path / "apiproxy.ini").write_text(f"[{section}]\n{key} = 11\n")
    assert in_force(tmp_path, section, key) == "11"
    (tmp_path / ".env").write_text(f"{env}=12\n")
    assert in_force(tmp_path, section, key) == "12"
    assert in_force(tmp_path, section, key, **{env: "13"}) == "13"


def test_config_option_replaces_the_usual_file(tmp_path):
    (tmp_path / "apiproxy.ini").write_text("[server]\ndrain_seconds = 11\n")
    (tmp_path / "other.ini").write_text("[server]\nworkers = 3\n")
    assert in_force(tmp_path, "server", "drain_seconds", "--config", "other.ini") == "30"
    assert in_force(tmp_path, "server", "workers", "--config", "other.ini") == "3"
    assert in_force(tmp_path, "server", "workers", "--config", str(tmp_path / "other.ini")) == "3"


def test_env_file_forms(tmp_path):
    (tmp_path / ".env").write_text(
        "# a comment\n\nAPI_PROXY_WORKERS = 3\nUNKNOWN_NAME=x\nOPENAI_API_KEY=sk-whatever\nAPI_PROXY_LOG_LEVEL=debug\n"
    )
    assert in_force(tmp_path, "server", "workers") == "3"
    assert in_force(tmp_path, "log", "level") == "debug"


def test_long_lines(tmp_path):
    """Neither a stranger's long value nor a long one of ours is cut or refused."""
    origins = ",".join(f"https://origin-{number}.test" for number in range(100))
    (tmp_path / ".env").write_text(f"SOME_CERTIFICATE={'x' * 20_000}\nAPI_PROXY_WORKERS=3\n")
    (tmp_path / "apiproxy.ini").write_text(f"[server]\ncors_origins = {origins}\n")
    assert in_force(tmp_path, "server", "workers") == "3"
    assert in_force(tmp_path, "server", "cors_origins").replace(" ", "") == origins


@pytest.mark.parametrize(
    "env,listen",
    [
        ({"PORT": "8123"}, "0.0.0.0:8123"),
        ({"PORT": "8123", "API_PROXY_LISTEN": "127.0.0.1:9000"}, "127.0.0.1:8123"),
        ({"PORT": "8123", "API_PROXY_LISTEN": "[::1]:9000"}, "[::1]:8123"),
    ],
)
def test_port_replaces_the_port(tmp_path, env, listen):
    assert in_force(tmp_path, "server", "listen", **env) == listen


def test_port_of_a_file_does_not_replace_what_the_environment_says(tmp_path):
    (tmp_path / ".env").write_text("PORT=8123\n")
    assert in_force(tmp_path, "server", "listen") == "0.0.0.0:8123"
    assert in_force(tmp_path, "server", "listen", API_PROXY_LISTEN="127.0.0.1:9000") == "127.0.0.1:9000"
    assert in_force(tmp_path, "server", "listen", API_PROXY_LISTEN="127.0.0.1:9000", PORT="8124") == "127.0.0.1:8124"


def test_port_is_listened_on():
    with HeldPortGateway() as gateway:
        assert gateway.get("/health").status == 200


class HeldPortGateway(Gateway):
    """Its port comes by PORT alone."""

    def __init__(self):
        held = HeldPort()
        super().__init__(port=held, API_PROXY_LISTEN="127.0.0.1:1", PORT=str(held.number))

    def discard(self):
        super().discard()
        self.held.release()


# -- settings that are wrong

BAD_VALUES = [
    ("server", "listen", "nonsense"), ("server", "listen", "127.0.0.1:99999"), ("server", "listen", "127.0.0.1"),
    ("server", "ops_listen", "x"), ("server", "workers", "-1"), ("server", "workers", "many"), ("server", "workers", "2x"),
    ("server", "drain_seconds", "soon"), ("server", "drain_seconds", "-1"), ("server", "max_connections", "1e3"),
    ("server", "header_timeout_seconds", "x"), ("server", "idle_timeout_seconds", "999999999999999999999"),
    ("server", "public_stats", "perhaps"), ("redis", "url", "http://h"), ("redis", "url", "localhost:6379"),
    ("auth", "token_ttl_seconds", "x"), ("limits", "on_redis_failure", "panic"), ("log", "level", "loud"),
    ("log", "format", "xml"), ("log", "access", "2"), ("tls", "enabled", "maybe"),
]


def assert_refused(result, *named: str):
    assert result.returncode == 1, (result.returncode, result.stderr)
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, result.stderr
    for word in named:
        assert word in lines[0], f"{word!r} is not named in {lines[0]!r}"


@pytest.mark.parametrize("section,key,value", BAD_VALUES)
def test_bad_value_in_the_ini_file(tmp_path, section, key, value):
    (tmp_path / "apiproxy.ini").write_text(f"; first line\n[{section}]\n\n{key} = {value}\n")
    result = run_once("--check", cwd=tmp_path)
    assert_refused(result, "apiproxy.ini", "4", key, value)


@pytest.mark.parametrize("section,key,value", BAD_VALUES)
def test_bad_value_in_the_environment(tmp_path, section, key, value):
    env = next(s[2] for s in SETTINGS if s[:2] == (section, key))
    assert_refused(run_once("--check", cwd=tmp_path, **{env: value}), env, value)


def test_bad_value_in_the_env_file(tmp_path):
    (tmp_path / ".env").write_text("# x\nAPI_PROXY_WORKERS=many\n")
    assert_refused(run_once("--check", cwd=tmp_path), ".env", "2", "API_PROXY_WORKERS", "many")


@pytest.mark.parametrize("value", ["0", "65536", "-1", "http", "80x"])
def test_bad_port(tmp_path, value):
    assert_refused(run_once("--check", cwd=tmp_path, PORT=value), "PORT", value)


def test_short_secrets_are_refused(tmp_path):
    assert run_once("--check", cwd=tmp_path, API_PROXY_JWT_SECRET="short").returncode == 1
    assert run_once("--check", cwd=tmp_path, API_PROXY_MASTER_KEY="abc").returncode == 1
    assert run_once("--check", cwd=tmp_path, API_PROXY_MASTER_KEY="g" * 64).returncode == 1


@pytest.mark.parametrize(
    "text,line,named",
    [
        ("[server]\nlisten_on = x\n", "2", "listen_on"),
        ("; x\n[nowhere]\n", "2", "nowhere"),
        ("[server]\nworkers = 1\nno equals sign here\n", "3", "apiproxy.ini"),
        ("[server\nworkers = 1\n", "1", "apiproxy.ini"),
        ("workers = 1\n", "1", "workers"),
    ],
)
def test_bad_ini_file(tmp_path, text, line, named):
    (tmp_path / "apiproxy.ini").write_text(text)
    assert_refused(run_once("--check", cwd=tmp_path), "apiproxy.ini", line, named)


def test_missing_config_file(tmp_path):
    assert_refused(run_once("--check", "--config", "nope.ini", cwd=tmp_path), "nope.ini")


def test_bad_setting_stops_the_start_too(tmp_path):
    assert_refused(run_once(cwd=tmp_path, API_PROXY_WORKERS="many"), "API_PROXY_WORKERS", "many")
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    "text,named",
    [
        ('{"mappings": [\n{"prefix"}\n', "line 2"),
        ('{"mappings": [{"prefix": "/stats", "target": "https://a.example"}]}', "mappings[0].prefix"),
        ('{"mappings": [], "more": []}', "more"),
        ("[]", "JSON object"),
        ('{"keys": [{"pool": "p", "key": "x"}, {"pool": "p"}]}', "keys[1].key: is required"),
        ('{"clients": [{"id": "app"}]}', "clients[0].key_sha256: is required"),
        ('{"users": [{"username": "ann"}]}', "users[0].password: is required"),
    ],
)
@pytest.mark.parametrize("arguments", [(), ("--check",)], ids=["start", "check"])
def test_bad_bootstrap_document_is_refused(tmp_path, arguments, text, named):
    (tmp_path / "boot.json").write_text(text)
    assert_refused(
        run_once(*arguments, cwd=tmp_path, API_PROXY_BOOTSTRAP="boot.json"),
        "environment API_PROXY_BOOTSTRAP = boot.json: ", named, "accepted: ",
    )
    (tmp_path / "apiproxy.ini").write_text("[bootstrap]\nfile = boot.json\n")
    assert_refused(run_once(*arguments, cwd=tmp_path), "apiproxy.ini:2: bootstrap.file = boot.json: ", named, "accepted: ")
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("arguments", [(), ("--check",)], ids=["start", "check"])
@pytest.mark.parametrize(
    "name, value, shown",
    [
        ("HTTPS_PROXY", "garbage://x", "environment HTTPS_PROXY=garbage://x: "),
        ("http_proxy", "https://proxy.test:3128", "environment http_proxy=https://proxy.test:3128: "),
        ("ALL_PROXY", "gopher://ann:hidden-pw@proxy.test\nx", "environment ALL_PROXY=gopher://ann:***@proxy.test?x: "),
    ],
)
def test_bad_proxy_is_refused(tmp_path, arguments, name, value, shown):
    result = run_once(*arguments, cwd=tmp_path, **{name: value})
    assert_refused(result, shown, "accepted: ", "socks5h")
    assert "hidden-pw" not in result.stderr and not (tmp_path / "data").exists()


@pytest.mark.parametrize("argument", ["--help", "--version", "--print-config", "--check"])
def test_what_cannot_be_printed_is_a_failure(tmp_path, argument):
    with open("/dev/full", "w") as full:
        result = subprocess.run([binary(), argument], cwd=tmp_path, env=clean_env(), stdout=full, stderr=subprocess.PIPE, text=True)
    assert_refused(result, "standard output")


def test_taken_port_stops_the_start(tmp_path):
    with RawServer() as taken:
        result = run_once(cwd=tmp_path, API_PROXY_LISTEN=taken.host, ADMIN_TOKEN=TOKEN)
        assert result.returncode == 1 and taken.host in result.stderr


def test_second_gateway_on_a_port_is_refused(gateway, tmp_path):
    result = run_once(cwd=tmp_path, API_PROXY_LISTEN=f"127.0.0.1:{gateway.port}", ADMIN_TOKEN=TOKEN)
    assert result.returncode == 1 and str(gateway.port) in result.stderr


def test_data_dir_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    result = run_once(cwd=tmp_path, API_PROXY_DATA_DIR="file/data", API_PROXY_LISTEN="127.0.0.1:1")
    assert result.returncode == 1 and "file/data" in result.stderr


# -- files


def mode_of(path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_generated_admin_token():
    with Gateway(ADMIN_TOKEN=None) as gateway:
        file = gateway.data_dir / "admin_token"
        assert mode_of(file) == 0o600
        assert "admin_token" in gateway.output, "its path is printed"
        token = file.read_text().strip()
        assert len(token) >= 32 and token not in gateway.output
        assert gateway.api("GET", "/api/mappings").status == 200
        gateway.restart()
        assert file.read_text().strip() == token
        assert gateway.api("GET", "/api/mappings", token=token).status == 200


def test_data_dir_holds_secrets_for_the_owner_alone():
    with Gateway() as gateway:
        assert not (gateway.data_dir / "admin_token").exists() or mode_of(gateway.data_dir / "admin_token") == 0o600
        key = gateway.data_dir / "master_key"
        assert mode_of(key) == 0o600 and re.fullmatch(r"[0-9a-f]{64}", key.read_text().strip())


def test_data_dir_elsewhere():
    with Gateway(API_PROXY_DATA_DIR="here/and/there") as gateway:
        assert (gateway.folder / "here/and/there").is_dir()
        assert not (gateway.folder / "data").exists()


# -- the embedded redis


def redis_child(gateway) -> int:
    return eventually(lambda: next((c for c in children(gateway.pid) if command_name(c).startswith("redis-server")), 0), 10)


def test_embedded_redis_listens_on_a_private_socket_only():
    with Gateway() as gateway:
        child = redis_child(gateway)
        sockets = [path for path in gateway.data_dir.rglob("*") if stat.S_ISSOCK(path.stat().st_mode)]
        assert len(sockets) == 1 and mode_of(sockets[0].parent) == 0o700
        inodes = {os.readlink(link) for link in Path(f"/proc/{child}/fd").iterdir()}
        with open("/proc/net/tcp", encoding="ascii") as table:
            listening = {f"socket:[{row.split()[9]}]" for row in table if row.split()[3] == "0A"}
        with open("/proc/net/tcp6", encoding="ascii") as table:
            listening |= {f"socket:[{row.split()[9]}]" for row in table if row.split()[3] == "0A"}
        assert not inodes & listening


def test_embedded_redis_ends_with_its_parent():
    gateway = Gateway()
    child = redis_child(gateway)
    gateway.stop()
    assert not is_running(child)


def test_embedded_redis_ends_with_a_killed_parent():
    gateway = Gateway()
    child = redis_child(gateway)
    gateway.kill()
    eventually(lambda: not is_running(child), 5)
    gateway.discard()


def test_embedded_redis_comes_back(vendor):
    with Gateway() as gateway:
        prefix = gateway.route(vendor.url)
        first = redis_child(gateway)
        os.kill(first, signal.SIGKILL)
        assert gateway.get(prefix + "/").status == 200, "traffic goes on"
        eventually(lambda: not is_running(first) and redis_child(gateway) != first, 10)
        eventually(lambda: gateway.api("GET", "/api/mappings").status == 200, 10)
        more = eventually(lambda: gateway.api("POST", "/api/mappings", {"prefix": "/more", "target": vendor.url}).status == 201, 10)
        assert more and gateway.get(prefix + "/").status == 200


def test_mappings_survive_a_restart_and_a_crash(vendor):
    with Gateway() as gateway:
        gateway.map("/kept", vendor.url)
        gateway.restart()
        assert gateway.get("/kept/").status == 200
        gateway.map("/kept2", vendor.url)
        time.sleep(1.1)  # appendonly, fsync every second
        gateway.kill()
        gateway.start()
        assert gateway.get("/kept/").status == 200 and gateway.get("/kept2/").status == 200


def test_needs_no_file_of_its_working_directory():
    with Gateway() as gateway:
        assert gateway.get("/").status == 200
        names = {path.name for path in gateway.folder.iterdir()}
        assert names == {"data"}


# -- signals


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_idle_gateway_ends_at_once(number):
    with Gateway() as gateway:
        idle = gateway.connect()
        assert idle.request("GET", "/health").status == 200
        began = time.monotonic()
        gateway.signal(number)
        assert gateway.wait(4) == 0
        assert time.monotonic() - began < 3


@pytest.mark.concurrency
def test_drain_finishes_what_is_in_flight(server):
    ops = HeldPort()
    with Gateway(API_PROXY_OPS_LISTEN=f"127.0.0.1:{ops.number}", API_PROXY_DRAIN_SECONDS="20") as gateway:
        prefix = gateway.route(server.url)
        open_connection = gateway.connect()
        assert open_connection.request("GET", "/health").status == 200
        client, upstream = gateway.begin(server, prefix + "/")
        upstream.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n")
        client.read_response_head()
        assert client.read_chunk() == b"one"
        gateway.signal(signal.SIGTERM)

        answer = eventually(lambda: (a := gateway.request("GET", "/health", port=ops.number)).status == 503 and a, 5)
        assert answer.json()["status"] != "ok"
        eventually(lambda: refuses(gateway.port), 5, what="no new connection is taken")
        answer = open_connection.request("GET", "/health")
        assert answer.status == 503

        upstream.send("3\r\ntwo\r\n")
        assert client.read_chunk() == b"two"
        assert gateway.alive()
        upstream.send("0\r\n\r\n")
        assert client.read_chunk() == b""
        assert gateway.wait(5) == 0
    ops.release()


def refuses(port: int) -> bool:
    try:
        RawClient(port, timeout=1).close()
        return False
    except ConnectionRefusedError:
        return True


@pytest.mark.concurrency
def test_drain_ends_with_its_time(server):
    with Gateway(API_PROXY_DRAIN_SECONDS="1") as gateway:
        prefix = gateway.route(server.url)
        client = gateway.connect()
        client.send(request_bytes("GET", prefix + "/"))
        server.accept().read_head()
        began = time.monotonic()
        gateway.signal(signal.SIGTERM)
        assert gateway.wait(8) == 0
        assert 0.8 < time.monotonic() - began < 5


@pytest.mark.concurrency
def test_hangup_signal_disturbs_nothing(server):
    with Gateway(API_PROXY_WORKERS="2", files={"apiproxy.ini": "[log]\nlevel = info\n"}) as gateway:
        prefix = gateway.route(server.url)
        client, upstream = gateway.begin(server, prefix + "/")
        (gateway.folder / "apiproxy.ini").write_text("[log]\nlevel = debug\n")
        gateway.signal(signal.SIGHUP)
        assert gateway.get("/health").status == 200
        upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        assert client.read_response().body == b"ok"


def test_hangup_signal_with_a_bad_file_changes_nothing(gateway):
    (gateway.folder / "apiproxy.ini").write_text("[log]\nlevel = loud\n")
    gateway.signal(signal.SIGHUP)
    try:
        assert gateway.get("/health").status == 200
        time.sleep(0.2)
        assert gateway.alive()
    finally:
        (gateway.folder / "apiproxy.ini").unlink()


def test_broken_pipe_of_the_log_kills_nobody():
    """A gateway whose stderr has gone goes on."""
    with Gateway(start=False) as gateway:
        process = subprocess.Popen(
            [binary()], cwd=gateway.folder, env=clean_env(**gateway.settings, API_PROXY_ACCESS_LOG="on"),
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        )
        try:
            process.stderr.readline()
            process.stderr.close()
            eventually(lambda: answers(gateway), 20)
            for _ in range(3):
                assert gateway.get("/health").status == 200
            process.terminate()
            assert process.wait(10) == 0
        finally:
            process.kill()
            process.wait()


def answers(gateway) -> bool:
    try:
        return gateway.get("/health").status == 200
    except OSError:
        return False


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_a_body_for_the_gateway_itself_that_stops():
    """A stranger must not be able to hold what the control plane has for ever; one that is slow is waited for."""
    login = b"POST /auth/login HTTP/1.1\r\nHost: x\r\nContent-Length: 44\r\n\r\n"
    with Gateway() as gateway:
        stopped, slow = (gateway.connect(timeout=80) for _ in range(2))
        stopped.send(login + b"{")
        slow.send(login)
        for piece in (b'{"username":"nobody",', b'"password":"wrong"', b"    }"):
            time.sleep(25)
            slow.send(piece)
        assert slow.read_response("POST").status == 401
        answer = stopped.read_response("POST")
        assert (answer.status, answer.header("x-apiproxy-error")) == (408, "request_timeout")
        assert gateway.api("GET", "/errors").json()["count"] == 0


# -- what is logged


SECRET = "sk-very-secret-credential"


@pytest.mark.parametrize("form", ["text", "json"])
def test_nothing_secret_is_logged(server, vendor, form):
    with Gateway(API_PROXY_LOG_LEVEL="debug", API_PROXY_LOG_FORMAT=form, API_PROXY_ACCESS_LOG="on") as gateway:
        prefix = gateway.route(vendor.url)
        dead = gateway.route("http://127.0.0.1:9/base")
        for target in (prefix, dead, "/unmapped"):
            fields = [("Authorization", "Bearer " + SECRET), ("x-api-key", SECRET), ("Cookie", SECRET)]
            gateway.request("POST", f"{target}/path-seen?key={SECRET}&q={SECRET}", fields, '{"prompt":"%s"}' % SECRET)
        gateway.request("GET", "/api/mappings", [("Authorization", "Bearer " + SECRET)])
        gateway.connect().request("GET", f"{prefix}/..?key={SECRET}")
        eventually(lambda: "path-seen" in gateway.output, 3, what="an access log line")
        if form == "json":
            for line in gateway.output.strip().splitlines():
                json.loads(line)
    assert SECRET not in gateway.output and TOKEN not in gateway.output


@pytest.mark.parametrize("level", ["debug", "warn", "error"])
@pytest.mark.parametrize("form", ["text", "json"])
def test_access_log_has_a_line_for_each_request(vendor, form, level):
    with Gateway(API_PROXY_LOG_FORMAT=form, API_PROXY_ACCESS_LOG="on", API_PROXY_LOG_LEVEL=level) as gateway:
        gateway.get(gateway.route(vendor.url) + "/path-seen?query-not-seen")
        gateway.get("/stats?query-not-seen")
        gateway.request("GET", "/api/clients")
        gateway.request("POST", "/auth/login", (), "{}")
        gateway.connect().send(b'GET /odd/"\xff\\ HTTP/1.1\r\nHost: x\r\n\r\n')
        wanted = ("/path-seen 200", "GET /stats 200", "GET /api/clients 401", "POST /auth/login 400", "404 no_mapping")
        eventually(lambda: all(line in gateway.output for line in wanted), 3, what="a line for each")
        assert "not-seen" not in gateway.output
        if form == "json":
            for line in gateway.output.encode("utf-8", "strict").decode().strip().splitlines():
                json.loads(line)
            assert "\ufffd" not in gateway.output, "no bytes that are not UTF-8"


def test_access_log_is_off_by_default(vendor):
    with Gateway() as gateway:
        gateway.get(gateway.route(vendor.url) + "/path-not-seen")
    assert "path-not-seen" not in gateway.output


# -- settings of the listeners


@pytest.mark.concurrency
def test_many_workers_serve():
    with Gateway(API_PROXY_WORKERS="4") as gateway:
        assert {gateway.get("/health").status for _ in range(20)} == {200}


def test_one_worker_serves_many_connections(vendor):
    with Gateway(API_PROXY_WORKERS="1") as gateway:
        prefix = gateway.route(vendor.url)
        clients = [gateway.connect() for _ in range(200)]
        assert {client.request("GET", prefix + "/").status for client in clients} == {200}


def test_ipv6_listener(vendor):
    try:
        probe = socket.socket(socket.AF_INET6)
        probe.bind(("::1", 0))
        port = probe.getsockname()[1]
        probe.close()
    except OSError:
        pytest.skip("no IPv6 here")
    gateway = Gateway(API_PROXY_LISTEN=f"[::1]:{port}", start=False)
    gateway.start(ready=False)
    try:

        def ask():
            try:
                with socket.create_connection(("::1", port), 2) as sock:
                    sock.sendall(b"GET /health HTTP/1.0\r\n\r\n")
                    return sock.recv(100).startswith(b"HTTP/1.1 200")
            except OSError:
                return False

        eventually(ask, 20)
    finally:
        gateway.stop()


# -- CORS

PREFLIGHT = [("Origin", "https://app.test"), ("Access-Control-Request-Method", "POST"), ("Access-Control-Request-Headers", "authorization,x-a")]


def test_preflight_passes_through_by_default(gateway, server, prefix):
    client = gateway.connect()
    client.send(request_bytes("OPTIONS", prefix + "/v1", PREFLIGHT))
    upstream = server.accept()
    assert upstream.read_head().get("origin") == "https://app.test"
    upstream.send("HTTP/1.1 204 No Content\r\nAccess-Control-Allow-Origin: x\r\n\r\n")
    answer = client.read_response()
    assert answer.head.all("access-control-allow-origin") == ["x"]


@pytest.mark.parametrize("origins", ["*", "https://other.test, https://app.test"])
def test_preflight_is_answered_where_origins_are_set(server, origins):
    with Gateway(API_PROXY_CORS_ORIGINS=origins) as gateway:
        prefix = gateway.route(server.url)
        answer = gateway.request("OPTIONS", prefix + "/v1", PREFLIGHT)
        assert answer.status in (200, 204) and not server.pending()
        assert answer.header("access-control-allow-origin") == ("*" if origins == "*" else "https://app.test")
        assert "POST" in answer.header("access-control-allow-methods")
        allowed = answer.header("access-control-allow-headers").lower()
        assert allowed == "*" or ("authorization" in allowed and "x-a" in allowed)


def test_preflight_with_a_body(vendor):
    """What follows a body that is all there is answered; where more would have to come the connection ends, and says so."""
    with Gateway(API_PROXY_CORS_ORIGINS="*") as gateway:
        prefix = gateway.route(vendor.url)
        for target in (prefix + "/v1", "/stats"):
            client = gateway.connect()
            client.send(request_bytes("OPTIONS", target, PREFLIGHT, b"{}") + request_bytes("GET", prefix + "/next"))
            answer = client.read_response("OPTIONS")
            assert answer.status == 204 and answer.header("connection") is None
            assert client.read_response().status == 200
        for rest in ([("Content-Length", "3")], [("Transfer-Encoding", "chunked")]):
            client = gateway.connect()
            client.send(request_bytes("OPTIONS", prefix + "/v1", PREFLIGHT + rest) + b"{}")
            answer = client.read_response("OPTIONS")
            assert answer.status == 204 and answer.header("connection") == "close"
            assert client.read_to_end() == b""


VENDORS_CORS = (
    "Access-Control-Allow-Origin: *\r\nAccess-Control-Allow-Credentials: true\r\n"
    "access-control-expose-headers: x-secret\r\nAccess-Control-Max-Age: 1\r\n"
)


def cors_of(answer) -> dict[str, list[str]]:
    names = {name.decode().lower() for name, _ in answer.head.fields}
    return {name: answer.head.all(name) for name in names if name.startswith(("access-control-", "vary"))}


@pytest.mark.parametrize(
    "origins, asked, expected",
    [
        ("https://app.test", "https://app.test",
         {"access-control-allow-origin": ["https://app.test"], "access-control-expose-headers": ["*"], "vary": ["Origin"]}),
        ("https://app.test", "https://evil.test", {"vary": ["Origin"]}),
        ("https://app.test", None, {"vary": ["Origin"]}),
        ("*", "https://app.test", {"access-control-allow-origin": ["*"], "access-control-expose-headers": ["*"]}),
        ("*", None, {"access-control-allow-origin": ["*"], "access-control-expose-headers": ["*"]}),
    ],
)
def test_answers_say_what_cors_origins_says_and_nothing_else(server, origins, asked, expected):
    """Above all not the vendor's leave to send cookies, beside an origin that we echo."""
    with Gateway(API_PROXY_CORS_ORIGINS=origins) as gateway:
        prefix = gateway.route(server.url)
        client, upstream = gateway.begin(server, prefix + "/", headers=[("Origin", asked)] if asked else [])
        upstream.send(f"HTTP/1.1 200 OK\r\n{VENDORS_CORS}Content-Length: 0\r\n\r\n")
        assert cors_of(client.read_response()) == expected
        fault = gateway.get("/nothing", [("Origin", asked)] if asked else [])
        assert fault.status == 404 and cors_of(fault) == expected


def test_cors_is_the_vendors_by_default(gateway, server, prefix):
    client, upstream = gateway.begin(server, prefix + "/", headers=[("Origin", "https://app.test")])
    upstream.send(f"HTTP/1.1 200 OK\r\n{VENDORS_CORS}Content-Length: 0\r\n\r\n")
    assert cors_of(client.read_response()) == {
        "access-control-allow-origin": ["*"], "access-control-allow-credentials": ["true"],
        "access-control-expose-headers": ["x-secret"], "access-control-max-age": ["1"],
    }


@pytest.mark.parametrize("path", ["/v1", "/stats"])
def test_preflight_of_another_origin_is_answered_without_leave(server, path):
    with Gateway(API_PROXY_CORS_ORIGINS="https://app.test") as gateway:
        prefix = gateway.route(server.url)
        answer = gateway.request(
            "OPTIONS", path if path == "/stats" else prefix + path, [("Origin", "https://evil.test"), *PREFLIGHT[1:]]
        )
        assert answer.status == 204 and not any(name.startswith("access-control-") for name in cors_of(answer))
        assert not server.pending()


def test_options_that_is_no_preflight_goes_on(server):
    with Gateway(API_PROXY_CORS_ORIGINS="https://app.test") as gateway:
        prefix = gateway.route(server.url)
        for headers in (PREFLIGHT[:1], PREFLIGHT[1:]):
            client, upstream = gateway.begin(server, prefix + "/", "OPTIONS", headers)
            upstream.send("HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
            assert client.read_response().status == 204
