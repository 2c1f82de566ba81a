"""Fixtures shared by all end-to-end tests. Everything runs on free ports and in its own folder."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import pytest

from support.certs import Authority
from support.gateway import Gateway, binary, https_gateway, is_sanitized
from support.managed import Nodes
from support.redis_server import Redis
from support.vendor import Vendor
from support.wire import RawServer

# Nothing of the caller's environment may reach the SDKs or the gateway.
for name in list(os.environ):
    if name.lower().endswith("_proxy") or name.startswith(("OPENAI_", "ANTHROPIC_", "GEMINI_", "GOOGLE_")):
        del os.environ[name]


def pytest_collection_modifyitems(items):
    """Figures of memory and time mean nothing under a sanitizer."""
    if os.path.exists(binary()) and is_sanitized():
        for item in items:
            if item.get_closest_marker("timing"):
                item.add_marker(pytest.mark.skip(reason="the binary is built with a sanitizer"))


@pytest.fixture(scope="session")
def authority():
    """The run's own certificate authority."""
    folder = Path(tempfile.mkdtemp(prefix="apiproxy-ca-"))
    yield Authority(folder)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def module_gateway(authority):
    """One gateway a module, for tests that need no settings of their own; it trusts `authority`."""
    shared = Gateway(SSL_CERT_FILE=str(authority.bundle), CURL_CA_BUNDLE=str(authority.bundle))
    yield shared
    shared.stop()


@pytest.fixture
def gateway(module_gateway):
    """The module's gateway; a test that kills it fails, and the next one gets it alive again."""
    if not module_gateway.alive():
        module_gateway.output = ""
        module_gateway.start()
    yield module_gateway
    module_gateway.close_connections()
    assert module_gateway.alive(), f"the gateway died:\n{module_gateway.output[-6000:]}"
    module_gateway.check_output()


@pytest.fixture(scope="module")
def tls_gateway(authority):
    """The same over HTTPS."""
    with https_gateway(authority, "shared") as shared:
        yield shared


@pytest.fixture(scope="module")
def pair():
    """Two nodes on one Redis."""
    with Nodes(2) as nodes:
        yield nodes


@pytest.fixture
def guarded(pair, vendor):
    """A mapping that wants to know who asks."""
    return pair.map(vendor.url, auth="required")


@pytest.fixture
def server():
    """A raw upstream that the test drives itself."""
    with RawServer() as raw:
        yield raw


@pytest.fixture
def tls_server(authority):
    with RawServer(tls=authority.server_context("localhost")) as raw:
        yield raw


@pytest.fixture
def vendor():
    with Vendor() as simulator:
        yield simulator


@pytest.fixture
def tls_vendor(authority):
    with Vendor(tls=authority.server_context()) as simulator:
        yield simulator


@pytest.fixture
def redis_server():
    with Redis() as server:
        yield server


@pytest.fixture
def prefix(gateway, server):
    """A mapping of its own to `server`."""
    return gateway.route(server.url)
