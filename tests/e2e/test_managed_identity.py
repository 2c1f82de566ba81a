"""Who is asking: credentials, what reaches the vendor, mappings lists, preflights."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time

import pytest

from support.gateway import Gateway
from support.managed import CHAT, Nodes, ask, bearer, chat_body, fault_of, login, name
from support.vendor import Vendor

SECRET = "a secret of more than thirty-two characters"
FIELDS = ["Authorization", "x-api-key", "x-goog-api-key", "api-key"]
PLACES = [*FIELDS, "query"]


@pytest.fixture(scope="module")
def one():
    with Nodes(1, API_PROXY_JWT_SECRET=SECRET) as nodes:
        yield nodes


@pytest.fixture
def guarded(one, vendor):
    return one.map(vendor.url, auth="required")


def in_place(place: str, key: str) -> tuple[list, str]:
    """(header fields, query) that bring the key."""
    if place == "query":
        return [], f"?key={key}"
    return [(place, f"Bearer {key}" if place == "Authorization" else key)], ""


def send(one, prefix, places: dict[str, str], query: str = ""):
    fields, parts = [("X-First", "1")], []
    for place, key in places.items():
        if place == "query":
            parts.append(f"key={key}")
        else:
            fields += in_place(place, key)[0]
    target = "&".join(([query] if query else []) + parts)
    return one[0].get(f"{prefix}/echo" + ("?" + target if target else ""), [*fields, ("X-Last", "2")])


def seen_names(vendor) -> set[str]:
    return {n.decode().lower() for n, _ in vendor.received[-1].request.head.fields}


# -- the five places


@pytest.mark.parametrize("place", PLACES)
def test_every_place_takes_a_client_key(one, vendor, guarded, place):
    key = one.client()
    assert send(one, guarded, {place: key}).status == 200
    assert key.encode() not in vendor.received[-1].raw
    assert seen_names(vendor) == {"host", "x-first", "x-last"}
    assert vendor.received[-1].target == "/echo"


@pytest.mark.parametrize("place", PLACES)
def test_every_place_takes_a_token(one, vendor, guarded, place):
    token = login(one[0], one.user()).json()["token"]
    assert send(one, guarded, {place: token}).status == 200
    assert token.encode() not in vendor.received[-1].raw


def test_scheme_and_field_names_are_of_any_case(one, guarded):
    key = one.client()
    for fields in ([("AUTHORIZATION", f"bearer {key}")], [("X-Api-Key", key)], [("X-GOOG-API-KEY", key)], [("Api-Key", key)]):
        assert one[0].get(guarded + "/echo", fields).status == 200, fields


@pytest.mark.parametrize("value", ["Basic {key}", "{key}", "Bearer", "Bearer ", "Token {key}", "Bearer {key} more", "Bearer {key}x"])
def test_other_forms_of_authorization_are_none(one, vendor, guarded, value):
    answer = one[0].get(guarded + "/echo", [("Authorization", value.format(key=one.client()))])
    assert fault_of(answer) == (401, "invalid_credentials")
    assert not vendor.received


def test_all_places_are_emptied_at_once(one, vendor, guarded):
    key = one.client()
    assert send(one, guarded, {place: key if place == "query" else "sk-" + place for place in PLACES}).status == 200
    assert seen_names(vendor) == {"host", "x-first", "x-last"}
    assert vendor.received[-1].target == "/echo"


def test_repeated_fields_are_all_emptied(one, vendor, guarded):
    key = one.client()
    fields = [("x-api-key", "a"), ("X-API-KEY", key), ("Authorization", "Bearer b"), ("authorization", "Basic eA==")]
    assert one[0].get(guarded + "/echo?key=c&key=d", fields).status == 200
    assert seen_names(vendor) == {"host"} and vendor.received[-1].target == "/echo"


@pytest.mark.parametrize("wrong", ["wrong", "sk-ap-wrong", "wr.on.g"])
def test_the_valid_one_may_be_the_last_of_many(one, vendor, guarded, wrong):
    """As many as there are lines that always pass: a hundred, with Host."""
    places = ["x-api-key"] * 98
    answer = one[0].get(guarded + "/echo", [*[(place, wrong) for place in places], ("api-key", one.client())])
    assert answer.status == 200
    assert not seen_names(vendor) & {field.lower() for field in FIELDS}


@pytest.mark.parametrize("first", range(len(PLACES)))
def test_first_valid_credential_decides(one, vendor, guarded, first):
    """In the order of the places, whatever the order of the fields; invalid ones before are passed over."""
    keys = {place: one.client(mappings=[] if n == first else ["/elsewhere"]) for n, place in enumerate(PLACES)}
    sent = {place: "sk-ap-wrong" if n < first else keys[place] for n, place in enumerate(PLACES)}
    assert send(one, guarded, dict(reversed(sent.items()))).status == 200
    if first + 1 < len(PLACES):
        del sent[PLACES[first]]
        assert fault_of(send(one, guarded, dict(reversed(sent.items())))) == (403, "not_allowed")


@pytest.mark.parametrize(
    "sent,arrives",
    [
        ("key={}", ""),
        ("a=1&key={}", "?a=1"),
        ("key={}&a=1", "?a=1"),
        ("a=%2F&key={}&b=+&c", "?a=%2F&b=+&c"),
        ("a=1&key={}&key=other&b=2", "?a=1&b=2"),
        ("%6bey={}&a=1", "?a=1"),
        ("akey=1&key={}&keyb=2&KEY=3", "?akey=1&keyb=2&KEY=3"),
        ("a==&&b=key&key={}", "?a==&&b=key"),
        ("alt=sse&key={}", "?alt=sse"),
        ("q=a;key=b&key={}", "?q=a;key=b"),
    ],
)
def test_key_leaves_the_query_and_nothing_else_does(one, vendor, guarded, sent, arrives):
    assert one[0].get(f"{guarded}/x?" + sent.format(one.client())).status == 200
    assert vendor.received[-1].target == "/x" + arrives


@pytest.mark.parametrize("query", ["?", "?a", "?&&", "?a=1&", "?%zz=%"])
def test_query_without_a_key_stays(one, vendor, guarded, query):
    assert one[0].get(guarded + "/x" + query, bearer(one.client())).status == 200
    assert vendor.received[-1].target == "/x" + query


def test_key_in_the_query_may_be_escaped(one, vendor, guarded):
    key = one.client()
    escaped = "".join(f"%{ord(c):02X}" for c in key)
    assert one[0].get(f"{guarded}/x?key={escaped}").status == 200


def test_rest_of_the_head_keeps_its_bytes_and_order(one, vendor, guarded):
    client = one[0].connect()
    key = one.client()
    client.send(
        f"GET {guarded}/x HTTP/1.1\r\nHost: a\r\nB-second:  two  \r\nx-api-key: {key}\r\na-First:one\r\nCookie: a=1\r\nCookie: b=2\r\n\r\n"
    )
    assert client.read_response().status == 200
    raw = vendor.received[-1].raw
    assert b"\r\nB-second:  two" in raw and b"\r\na-First:one\r\nCookie: a=1\r\nCookie: b=2\r\n" in raw
    assert raw.index(b"B-second") < raw.index(b"a-First")


def test_body_arrives_unchanged(one, vendor, guarded):
    body = b'{ "model" : "m",\n"messages":[ ],  "max_tokens":5}'
    assert ask(one[0], guarded, one.client(output_tpm=1000, input_tpm=1000), body).status == 200
    assert vendor.received[-1].body == body
    assert vendor.received[-1].header("content-length") == str(len(body))


# -- the vendor's key in the dialect's place


# Where each vendor would find another credential than ours.
LOOKED_AT = {"openai": {"api-key"}, "anthropic": {"authorization"}, "gemini": {"authorization", "?key"}}


@pytest.mark.parametrize(
    "dialect,field,prefix", [("openai", "authorization", "Bearer "), ("anthropic", "x-api-key", ""), ("gemini", "x-goog-api-key", "")]
)
@pytest.mark.parametrize("auth", ["required", "none"])
def test_vendor_key_goes_where_the_dialect_wants_it(one, vendor, dialect, field, prefix, auth):
    key = name("vk")
    mapping = one.map(vendor.url, auth=auth, dialect=dialect, pool=one.pool(key))
    fields = [(n, v) for place in FIELDS for n, v in in_place(place, one.client())[0]]
    assert one[0].get(mapping + "/echo?a=%2F&key=mine&%6bey=mine&b", fields).status == 200
    head = vendor.received[-1].request.head
    assert head.all(field) == [f"{prefix}secret-{key}"]
    for other in {f.lower() for f in FIELDS} - {field}:
        assert (other in head) == (auth == "none" and other not in LOOKED_AT[dialect]), other
    looks = auth == "required" or "?key" in LOOKED_AT[dialect]
    assert vendor.received[-1].target == "/echo?a=%2F&" + ("b" if looks else "key=mine&%6bey=mine&b")


@pytest.mark.parametrize("dialect", LOOKED_AT)
def test_without_a_key_of_ours_the_clients_pass(one, vendor, dialect):
    mapping = one.map(vendor.url, dialect=dialect, queue={"rate_per_second": 100, "capacity": 1, "timeout_seconds": 5})
    fields = [(n, v) for place in FIELDS for n, v in in_place(place, "mine")[0]]
    assert one[0].get(mapping + "/echo?key=mine", fields).status == 200
    head = vendor.received[-1].request.head
    assert all(f.lower() in head for f in FIELDS) and vendor.received[-1].target == "/echo?key=mine"


@pytest.mark.parametrize("header,prefix", [("api-key", ""), ("X-Vendor-Token", ""), ("Authorization", "Bearer ")])
@pytest.mark.parametrize("auth", ["required", "none"])
def test_key_header_names_the_place(one, vendor, header, prefix, auth):
    key = name("vk")
    mapping = one.map(vendor.url, auth=auth, pool=one.pool(key), key_header=header)
    assert one[0].get(mapping + "/echo", [("x-api-key", one.client()), (header, "mine")]).status == 200
    assert vendor.received[-1].request.head.all(header) == [f"{prefix}secret-{key}"]


def test_key_is_put_in_where_the_client_sent_none(one, vendor):
    key = name("vk")
    mapping = one.map(vendor.url, pool=one.pool(key))
    assert one[0].get(mapping + "/echo").status == 200
    assert vendor.received[-1].header("authorization") == f"Bearer secret-{key}"


def test_claude_codes_two_credentials_both_come_out(one, vendor):
    key = name("vk")
    mapping = one.map(vendor.url, auth="required", dialect="anthropic", pool=one.pool(key))
    mine = one.client()
    fields = [("Authorization", f"Bearer {mine}"), ("x-api-key", mine), ("anthropic-version", "2023-06-01"), ("anthropic-beta", "a,b")]
    fields += [("anthropic-dangerous-direct-browser-access", "true")]
    answer = one[0].request("POST", mapping + "/v1/messages?beta=true", fields, chat_body(max_tokens=5))
    assert answer.status == 200
    head = vendor.received[-1].request.head
    assert vendor.received[-1].target == "/v1/messages?beta=true"
    assert "authorization" not in head and head.all("x-api-key") == [f"secret-{key}"]
    assert head.get("anthropic-version") == "2023-06-01" and head.get("anthropic-beta") == "a,b"
    assert head.get("anthropic-dangerous-direct-browser-access") == "true"
    assert one[0].request("HEAD", mapping + "/api/hello", bearer(mine)).status == 200
    assert one[0].get(mapping + "/v1/models?limit=1000", bearer(mine)).status == 200
    assert [r.target for r in vendor.received[1:]] == ["/api/hello", "/v1/models?limit=1000"]


# -- who is refused


def test_nobody_is_refused(one, vendor, guarded):
    answer = one[0].get(guarded + "/x")
    assert fault_of(answer) == (401, "invalid_credentials")
    assert not vendor.received


@pytest.mark.parametrize("key", ["sk-ap-" + "A" * 43, "sk-ap-", "", "x", "a.b.c", "..", "sk-other", "€", "x" * 20000])
def test_wrong_keys_are_refused(one, vendor, guarded, key):
    client = one[0].connect()
    client.send(f"GET {guarded}/x HTTP/1.1\r\nHost: a\r\nx-api-key: ".encode() + key.encode() + b"\r\n\r\n")
    assert fault_of(client.read_response()) == (401, "invalid_credentials")
    assert not vendor.received


def test_key_of_the_admin_is_no_credential(one, guarded):
    assert one[0].get(guarded + "/x", bearer(one[0].admin_token)).status == 401


def test_expired_client(one, guarded):
    soon = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 2))
    key = one.client(expires_at=soon)
    assert one[0].get(guarded + "/x", bearer(key)).status == 200
    deadline = time.monotonic() + 4
    while one[0].get(guarded + "/x", bearer(key)).status == 200:
        assert time.monotonic() < deadline, "still valid"
        time.sleep(0.1)
    assert fault_of(one[0].get(guarded + "/x", bearer(key))) == (401, "invalid_credentials")


@pytest.mark.parametrize("at", ["2001-02-03T04:05:06Z", "2001-02-03T04:05:06.789+02:00"])
def test_client_expired_long_ago(one, guarded, at):
    assert fault_of(one[0].get(guarded + "/x", bearer(one.client(expires_at=at)))) == (401, "invalid_credentials")


def test_disabled_client(one, guarded):
    id, key = one.client_with_id()
    one.change(f"/api/clients/{id}", enabled=False)
    assert fault_of(one[0].get(guarded + "/x", bearer(key))) == (403, "not_allowed")
    one.change(f"/api/clients/{id}", enabled=True)
    assert one[0].get(guarded + "/x", bearer(key)).status == 200


def test_mappings_list_limits_where_a_client_may_go(one, vendor, guarded):
    other = one.map(vendor.url, auth="required")
    key = one.client(mappings=[other])
    assert one[0].get(other + "/x", bearer(key)).status == 200
    assert fault_of(one[0].get(guarded + "/x", bearer(key))) == (403, "not_allowed")


def test_mappings_list_limits_where_a_user_may_go(one, vendor, guarded):
    other = one.map(vendor.url, auth="required")
    token = login(one[0], one.user(mappings=[other])).json()["token"]
    assert one[0].get(other + "/x", bearer(token)).status == 200
    assert fault_of(one[0].get(guarded + "/x", bearer(token))) == (403, "not_allowed")


def test_refusal_keeps_the_connection(one, guarded):
    client = one[0].connect()
    for _ in range(3):
        assert client.request("POST", guarded + "/x", [], b"y" * 100).status == 401
    assert client.request("GET", "/health").status == 200


# -- tokens


def base64url(data) -> str:
    raw = data if isinstance(data, bytes) else json.dumps(data).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def sign(header: dict, claims, secret: str = SECRET, algorithm=hashlib.sha256) -> str:
    text = f"{base64url(header)}.{base64url(claims)}"
    return f"{text}.{base64url(hmac.new(secret.encode(), text.encode(), algorithm).digest())}"


def claims_of(token: str) -> dict:
    part = token.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))


def header_of(token: str) -> dict:
    part = token.split(".")[0]
    return json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))


@pytest.fixture(scope="module")
def token(one):
    username = one.user()
    answer = login(one[0], username)
    token = answer.json()["token"]
    assert header_of(token)["alg"] == "HS256"
    claims = claims_of(token)
    assert claims["sub"] == username and claims["exp"] > time.time()
    return token


def test_token_signed_anew_with_the_secret_is_accepted(one, guarded, token):
    """So that the refusals below are for the reason they name."""
    assert one[0].get(guarded + "/x", bearer(sign(header_of(token), claims_of(token)))).status == 200
    assert one[0].get(guarded + "/x", bearer(token)).status == 200


@pytest.mark.parametrize("end", [60, 60.5])
def test_who_has_the_secret_may_sign_tokens(one, guarded, end):
    username = one.user()
    minted = sign({"alg": "HS256", "typ": "JWT"}, {"sub": username, "exp": int(time.time()) + end})
    assert one[0].get(guarded + "/x", bearer(minted)).status == 200
    one.change(f"/api/users/{username}", enabled=False)
    assert one[0].get(guarded + "/x", bearer(minted)).status == 401


TRICKS = {
    "another secret": lambda h, c: sign(h, c, "another secret of more than 32 characters"),
    "empty secret": lambda h, c: sign(h, c, ""),
    "alg none": lambda h, c: f"{base64url({**h, 'alg': 'none'})}.{base64url(c)}.",
    "alg None": lambda h, c: f"{base64url({**h, 'alg': 'None'})}.{base64url(c)}.",
    "alg none, signed": lambda h, c: sign({**h, "alg": "none"}, c),
    "no alg": lambda h, c: sign({"typ": "JWT"}, c),
    "HS512": lambda h, c: sign({**h, "alg": "HS512"}, c, algorithm=hashlib.sha512),
    "HS384": lambda h, c: sign({**h, "alg": "HS384"}, c, algorithm=hashlib.sha384),
    "hs256": lambda h, c: sign({**h, "alg": "hs256"}, c),
    "an extension": lambda h, c: sign({**h, "crit": ["exp"]}, c),
    "HS256 named RS256": lambda h, c: sign({**h, "alg": "RS256"}, c),
    "no exp": lambda h, c: sign(h, {k: v for k, v in c.items() if k != "exp"}),
    "exp as text": lambda h, c: sign(h, {**c, "exp": "9999999999"}),
    "exp null": lambda h, c: sign(h, {**c, "exp": None}),
    "expired": lambda h, c: sign(h, {**c, "iat": 1, "exp": int(time.time()) - 1}),
    "no sub": lambda h, c: sign(h, {k: v for k, v in c.items() if k != "sub"}),
    "another sub": lambda h, c: sign(h, {**c, "sub": "nobody"}),
    "sub as number": lambda h, c: sign(h, {**c, "sub": 5}),
    "claims are a list": lambda h, c: sign(h, [c]),
    "claims are no JSON": lambda h, c: sign(h, b"{"),
    "no signature": lambda h, c: ".".join(sign(h, c).split(".")[:2]) + ".",
    "two parts": lambda h, c: ".".join(sign(h, c).split(".")[:2]),
    "four parts": lambda h, c: sign(h, c) + ".x",
    "cut signature": lambda h, c: sign(h, c)[:-4],
    "changed claims": lambda h, c: (t := sign(h, c).split("."))[0] + "." + base64url({**c, "exp": c["exp"] + 1}) + "." + t[2],
    "padded": lambda h, c: sign(h, c) + "=",
}


@pytest.mark.parametrize("trick", TRICKS)
def test_forged_tokens_are_refused(one, vendor, guarded, token, trick):
    forged = TRICKS[trick](header_of(token), claims_of(token))
    assert fault_of(one[0].get(guarded + "/x", bearer(forged))) == (401, "invalid_credentials")
    assert not vendor.received


# -- CORS


PREFLIGHT = [("Origin", "https://app.test"), ("Access-Control-Request-Method", "POST"), ("Access-Control-Request-Headers", "authorization,x-a")]


def test_preflight_is_answered_before_any_of_this():
    with Vendor() as vendor, Gateway(API_PROXY_CORS_ORIGINS="https://app.test,https://b.test") as gateway:
        gateway.map("/g", vendor.url, auth="required", queue={"rate_per_second": 1, "capacity": 1, "timeout_seconds": 1}, pool="none")
        answer = gateway.request("OPTIONS", "/g" + CHAT, PREFLIGHT)
        assert answer.status in (200, 204)
        assert answer.header("access-control-allow-origin") == "https://app.test"
        assert "POST" in answer.header("access-control-allow-methods")
        assert {"authorization", "x-a"} <= {h.strip().lower() for h in answer.header("access-control-allow-headers").split(",")}
        refused = gateway.get("/g/x", [("Origin", "https://app.test")])
        assert refused.status == 401 and refused.header("access-control-allow-origin") == "https://app.test"
        stranger = gateway.request("OPTIONS", "/g/x", [("Origin", "https://evil.test"), *PREFLIGHT[1:]])
        assert stranger.header("access-control-allow-origin") is None and stranger.status == 204
        assert not vendor.received


def test_preflight_without_cors_origins_is_a_request_like_others(one, vendor, guarded):
    assert one[0].request("OPTIONS", guarded + "/x", PREFLIGHT).status == 401
    assert not vendor.received
