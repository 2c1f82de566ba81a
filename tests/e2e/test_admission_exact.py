"""The admission scripts against a real Redis, with a clock that the test turns.

Each test plays random arrivals, settlements, failures and kills of several nodes in the order in
which Redis would see them, and a model or a checker that knows nothing of the scripts judges every
decision. The scripts are put together as admission_scripts.c does it; only TIME is replaced.
"""

import bisect
import math
import random
import re
import struct
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[2] / "src" / "path"
SPAN, LEASE, RENEW = 60_000, 45_000, 15_000
SECOND = 1_025  # and what the way to the vendor may add
ADMITTED, CONCURRENCY, RATE, QUEUE_FULL, KEYS_LIMITED, NO_KEY, WAITS = range(7)


def health_table() -> str:
    header = (SOURCE / "admission_health.h").read_text()
    rows = re.findall(r"X\((?:OK|COOLING|TRIAL|OWN),\s*(\w+),\s*(\w+),\s*(\w+),\s*(\w+),\s*(\w+)\)", header)
    assert len(rows) == 4
    return "local HEALTH_TABLE = {" + ", ".join("{" + ", ".join(f"'{a}'" for a in row) + "}" for row in rows) + "}\n"


def script(name: str) -> str:
    """As admission_scripts.c puts them together, with a clock that the test sets."""
    if name == "HEALTH_TABLE":
        return health_table()
    text = (SOURCE / name).read_text()
    text = re.sub(r"(?m)^\t*-- include (\S+)$", lambda line: script(line[1]), text)
    return text.replace("redis.call('TIME')", "call('TIME')").replace("call('TIME')", "{0, redis.call('GET', 'clock') * 1000}")


class Answer:
    def __init__(self, raw: bytes):
        n = struct.unpack(f"<{len(raw) // 8}d", raw)
        self.verdict, self.wait, self.now = int(n[0]), n[1], n[2]
        self.sums, self.reset, self.event, self.made = n[3:6], n[6], n[7], n[8]
        self.start, self.choice, self.key_event, self.key_made, self.trial = n[9], int(n[10]), n[11], n[12], n[13]
        self.rule = n[14]
        self.learnt = [n[i : i + 3] for i in range(15, len(n), 3)]


class Scripts:
    def __init__(self, server):
        self.redis = server.client.__class__(unix_socket_path=str(server.socket))
        self.now = 1_700_000_000_000
        load = self.redis.script_load
        self.admit_sha = load(script("admission_admit.lua"))
        self.key_sha = load(script("admission_key.lua"))
        self.settle_sha = load(script("admission_settle.lua"))
        self.leave_sha = load(script("admission_leave.lua"))
        self.move_sha = load(script("admission_move.lua"))
        self.forward_sha = load(script("admission_forward.lua"))
        self.renew_sha = load(script("admission_renew.lua"))
        self.names = 0

    def call(self, sha, keys, *arguments):
        pipeline = self.redis.pipeline(transaction=False)
        pipeline.set("clock", self.now)
        pipeline.evalsha(sha, len(keys), *keys, *arguments)
        return pipeline.execute()[1]

    def admit(self, subject="s", places=0, limits=(0, 0, 0), tokens=(0, 0), worker=b"worker-1", queue=None, candidates=(), name=None, pool="pool", behind=0, read=0):
        """queue: (starts, span, capacity, patience); candidates: (id, limit) each; read: when the rule was."""
        return self.admit_all([tokens], subject, places, limits, worker, queue, candidates, name, pool, behind, read)[0]

    def admit_all(self, tokens, subject="s", places=0, limits=(0, 0, 0), worker=b"worker-1", queue=None, candidates=(), name=None, pool="pool", behind=0, read=0):
        """Several requests in one call: their tokens."""
        stages = 1 + (2 if queue else 0) + (4 if candidates else 0)
        self.names += 1
        numbers = [stages, SPAN, LEASE, places, *limits, len(tokens), *((*queue, read, behind) if queue else ())]
        keys_of_each = [x for place, (_, limit) in enumerate(candidates, 1) for x in (place, limit)]
        requests = b"".join(struct.pack(f"<{3 + len(keys_of_each)}d", *t, len(candidates), *keys_of_each) for t in tokens)
        key = f"apiproxy:limit:{{{subject}}}:c"
        keys = [key, "apiproxy:limit:{/q}:q" if queue else key, f"apiproxy:limit:{{{pool}}}" if candidates else key]
        answers = self.call(self.admit_sha, keys, struct.pack(f"<{len(numbers)}d", *numbers) + requests, name or f"n{self.names}", worker, *(key_id for key_id, _ in candidates))
        answers = answers if len(tokens) > 1 else [answers]
        assert len(answers) == len(tokens)
        return [Answer(a) for a in answers]

    def settle(self, answer, reserved=(0, 0), used=None, subject="s", place=False, give_back=False, worker=b"worker-1"):
        self.settle_all([(answer, reserved, used, give_back)], subject, place, worker)

    def settle_all(self, ended, subject="s", place=False, worker=b"worker-1"):
        """ended: (answer, reserved, used, give_back) each."""
        day, changes = [0, 0, 0], []
        for answer, reserved, used, give_back in ended:
            i, o = used or (0, 0)
            day = [d + n for d, n in zip(day, (not give_back, i, o))]
            if give_back or used is not None:
                changes += [answer.event, answer.made, -give_back, i - reserved[0], o - reserved[1]]
        numbers = [self.now // 86_400_000, place * len(ended), *day, len(changes) // 5, *changes]
        key = f"apiproxy:limit:{{{subject}}}:c"
        self.call(self.settle_sha, [key, key.replace("limit", "usage")], struct.pack(f"<{len(numbers)}d", *map(float, numbers)), worker)

    def report(self, key, outcome, status=0, retry_after=0, trial=0.0, candidates=()):
        each = [x for place, (_, limit) in enumerate(candidates, 1) for x in (place, limit)]
        numbers = struct.pack(f"<{8 + len(each)}d", SPAN, outcome, status, retry_after, trial, 0, 0, len(candidates), *each)
        raw = self.call(self.key_sha, ["apiproxy:limit:{pool}"], numbers, key, *(key_id for key_id, _ in candidates))
        return Answer(raw) if candidates else None

    def leave(self, name, start, rule):
        self.call(self.leave_sha, ["apiproxy:limit:{/q}:q"], name, int(start), int(rule))

    def move(self, places, queue, read):
        """places: (name, start, rule) each. Returns the rule and their starts."""
        numbers = struct.pack(f"<{6 + 2 * len(places)}d", *queue, read, 0, *(x for _, start, rule in places for x in (start, rule)))
        raw = self.call(self.move_sha, ["apiproxy:limit:{/q}:q"], numbers, *(name for name, _, _ in places))
        _, rule, *starts = struct.unpack(f"<{2 + len(places)}d", raw)
        return rule, starts

    def forward(self, places, rule, near):
        """places: (name, start) each, in the order of their starts. Returns what was left to others, and their new starts."""
        numbers = struct.pack(f"<{2 + len(places)}d", rule, near, *(start for _, start in places))
        raw = self.call(self.forward_sha, ["apiproxy:limit:{/q}:q"], numbers, *(name for name, _ in places))
        _, left, *starts = struct.unpack(f"<{2 + len(places)}d", raw)
        return left, starts

    def to_come(self, what):
        """Of places that wait (w), or of starts that are free (f), in their order."""
        return [s for _, s in self.redis.zrange(f"apiproxy:limit:{{/q}}:q:{what}", 0, -1, withscores=True) if s > self.now]

    def renew(self, worker, count, subject="s"):
        self.call(self.renew_sha, [f"apiproxy:limit:{{{subject}}}:c"], worker, LEASE, count)


@pytest.fixture
def scripts(redis_server):
    return Scripts(redis_server)


def most_in_any(times, span):
    """The most events that any interval [t, t + span] holds."""
    most, first = 0, 0
    for last, t in enumerate(times):
        while times[first] < t - span:
            first += 1
        most = max(most, last - first + 1)
    return most


@pytest.mark.parametrize("seed", range(6))
def test_windows_decide_as_the_model_does(scripts, seed):
    """Requests, input and output tokens with reservations, settlements and failures: every single decision."""
    rng = random.Random(seed)
    limits = (rng.choice([0, 1, 7, 60]), rng.choice([0, 500, 5000]), rng.choice([0, 300, 3000]))
    events, open_requests, decisions = [], [], [0, 0]
    for _ in range(2500):
        scripts.now += rng.choice([0, 0, 1, 3, 50, 700, 3000]) if rng.random() < 0.995 else rng.randint(50_000, 130_000)
        if open_requests and rng.random() < 0.45:
            event, answer = open_requests.pop(rng.randrange(len(open_requests)))
            how = rng.random()
            if how < 0.2:
                scripts.settle(answer, event["amounts"][1:], give_back=True)
                event["amounts"] = [0, 0, 0]
            elif how < 0.8:
                used = (rng.randint(0, 120), rng.randint(0, 120))
                scripts.settle(answer, event["amounts"][1:], used=used)
                if answer.event:
                    event["amounts"] = [1, *used]
            else:
                scripts.settle(answer, event["amounts"][1:])
            continue
        wanted = (rng.randint(0, 100), rng.randint(0, 100))
        counted = [e for e in events if scripts.now - e["at"] <= SPAN]
        sums = [sum(e["amounts"][w] for e in counted) for w in range(3)]
        lacks = [s + n - limit if limit else 0 for s, n, limit in zip(sums, (1, max(1, wanted[0]), max(1, wanted[1])), limits)]
        answer = scripts.admit(limits=limits, tokens=wanted)
        expected = RATE if max(lacks) > 0 else ADMITTED
        assert answer.verdict == expected, (scripts.now, sums, wanted, limits)
        decisions[expected == ADMITTED] += 1
        if expected == ADMITTED:
            event = {"at": scripts.now, "amounts": [1, *wanted]}
            events.append(event)
            open_requests.append((event, answer))
            if any(limits):
                assert answer.sums == tuple(s + n for s, n in zip(sums, (1, *wanted)))
        else:
            left, free_at = list(lacks), scripts.now
            for e in counted:
                if max(left) <= 0:
                    break
                left = [x - a for x, a in zip(left, e["amounts"])]
                free_at = e["at"] + SPAN
            assert answer.wait == max(1, free_at - scripts.now) if counted else answer.wait == SPAN
    assert decisions[True] > 20 and (decisions[False] > 20 or not any(limits))


@pytest.mark.parametrize("seed", range(6))
def test_several_in_one_call_are_as_one_after_the_other(scripts, seed):
    """Of two subjects, one asks and settles for all requests of a turn at once, the other for each by itself."""
    rng = random.Random(seed)
    limits = (rng.choice([0, 5, 60]), rng.choice([0, 2000]), rng.choice([0, 900]))
    more = {"places": rng.choice([0, 3, 8]), "limits": limits, "candidates": [("a", 20), ("b", 0)] if seed % 2 else [("a", 9), ("b", 15)]}
    under_way, verdicts = [], set()
    for _ in range(500):
        scripts.now += rng.choice([0, 1, 5, 200, 3000]) if rng.random() < 0.99 else rng.randint(50_000, 130_000)
        rng.shuffle(under_way)
        count = rng.randint(0, 6)
        ended, under_way = under_way[:count], under_way[count:]
        if ended:
            fates = [(tokens, *rng.choice([(tokens, False), ((7, 300), False), (None, False), (None, True)])) for _, _, tokens in ended]
            scripts.settle_all([(one, *fate) for (one, _, _), fate in zip(ended, fates)], "one", more["places"] > 0)
            for (_, each, _), fate in zip(ended, fates):
                scripts.settle_all([(each, *fate)], "each", more["places"] > 0)
        wanted = [(rng.randint(0, 200), rng.randint(0, 100)) for _ in range(rng.randint(1, 9))]
        at_once = scripts.admit_all(wanted, "one", pool="one", **more)
        singly = [scripts.admit(subject="each", tokens=w, pool="each", **more) for w in wanted]
        for one, each, tokens in zip(at_once, singly, wanted):
            assert vars(one) == vars(each) | {"made": one.made, "key_made": one.key_made}
            verdicts.add(one.verdict)
            if one.verdict == ADMITTED:
                under_way.append((one, each, tokens))
    assert {ADMITTED} < verdicts


@pytest.mark.parametrize("limit", [1, 60, 1000])
def test_saturation_uses_what_is_there(scripts, limit):
    """Callers who never stop asking: never one too many, and at least 99 % of the limit."""
    rng = random.Random(limit)
    times, end = [], scripts.now + 5 * SPAN
    while scripts.now < end:
        answer = scripts.admit(limits=(limit, 0, 0))
        if answer.verdict == ADMITTED:
            times.append(scripts.now)
            scripts.now += rng.choice([0, 0, 0, 1])
        elif answer.wait > 1:  # the answer says when: not at that very millisecond, but at the next
            scripts.now += int(answer.wait)
            assert scripts.admit(limits=(limit, 0, 0)).verdict == RATE
            scripts.now += 1
        else:
            scripts.now += 1
    assert most_in_any(times, SPAN) == limit
    assert len(times) >= 0.99 * limit * 5


def test_large_windows_err_on_the_safe_side_and_stay_small(scripts):
    limit, times = 15_000, []
    key = "apiproxy:limit:{s}:c"
    numbers = struct.pack("<11d", 1, SPAN, LEASE, 0, limit, 0, 0, 1, 0, 0, 0)
    for _ in range(1300):  # 130 s, 100 ms at a time, more than the limit is offered
        pipeline = scripts.redis.pipeline(transaction=False)
        stamps = []
        for step in range(10):
            pipeline.set("clock", scripts.now + step * 10)
            for _ in range(3):
                stamps.append(scripts.now + step * 10)
                pipeline.evalsha(scripts.admit_sha, 3, key, key, key, numbers, "n", b"worker-1")
        answers = [a for a in pipeline.execute() if isinstance(a, bytes)]
        times += [t for t, a in zip(stamps, answers) if struct.unpack("<d", a[:8])[0] == ADMITTED]
        scripts.now += 100
    assert most_in_any(times, SPAN) <= limit
    last_minute = len(times) - bisect.bisect_left(times, scripts.now - SPAN)
    assert last_minute >= 0.99 * limit
    assert scripts.redis.llen(key + ":e") <= 10_600
    assert scripts.redis.memory_usage(key + ":e") < 400_000
    assert 0 < scripts.redis.pttl(key + ":e") <= 3 * SPAN


@pytest.mark.parametrize("seed", range(4))
def test_places_of_the_dead_come_free_and_those_of_the_living_do_not(scripts, seed):
    rng = random.Random(seed)
    places = rng.randint(1, 5)
    living = {f"worker-{n}".encode(): {"open": [], "told": scripts.now} for n in range(3)}
    lost = []  # (when it died, how many)
    refused = admitted = 0
    for step in range(3000):
        scripts.now += rng.choice([1, 20, 300, 2000])
        for name, worker in living.items():
            if worker["open"] and scripts.now - worker["told"] >= RENEW:
                scripts.renew(name, rng.choice([len(worker["open"]), -1]))
                worker["told"] = scripts.now
        name = rng.choice(list(living))
        worker = living[name]
        if worker["open"] and rng.random() < 0.4:
            scripts.settle(worker["open"].pop(), place=True, worker=name)
            continue
        if rng.random() < 0.01:
            lost.append((scripts.now, len(worker["open"])))
            del living[name]
            living[f"w{step:07d}".encode()] = {"open": [], "told": scripts.now}
            continue
        taken = sum(len(w["open"]) for w in living.values())
        ghosts = sum(count for died, count in lost if scripts.now - died <= SPAN)
        answer = scripts.admit(places=places, worker=name)
        if answer.verdict == ADMITTED:
            assert taken < places
            worker["open"].append(answer)
            worker["told"] = scripts.now
            admitted += 1
        else:
            assert answer.verdict == CONCURRENCY
            assert taken + ghosts >= places
            refused += 1
    assert admitted > 100 and refused > 20


@pytest.mark.parametrize("rate", [0.5, 1, 3, 2.5, 20])
def test_a_queue_never_starts_more_than_its_rate(scripts, rate):
    rng = random.Random(str(rate))
    starts = max(1, math.floor(rate))
    span = SECOND if rate >= 1 else math.ceil(1000 / rate) + 25
    capacity, patience = 12, 4000
    waiting, begun, refused = {}, [], 0
    for step in range(2500):
        scripts.now += rng.choice([0, 0, 5, 40, 300]) if rng.random() < 0.97 else rng.randint(1000, 8000)
        for name in [n for n, w in waiting.items() if w["until"] <= scripts.now]:
            if waiting[name]["start"]:
                begun.append(waiting[name]["start"])
            del waiting[name]
        if waiting and rng.random() < 0.1:
            name = rng.choice(list(waiting))
            gone = waiting.pop(name)
            scripts.leave(name, gone["start"], gone["rule"])
            continue
        name = f"n{step}"
        answer = scripts.admit(queue=(starts, span, capacity, patience), name=name)
        if answer.verdict == ADMITTED:
            begun.append(scripts.now)
        elif answer.verdict == WAITS:
            assert len(waiting) < capacity
            until = answer.start or scripts.now + patience
            assert scripts.now <= until <= scripts.now + patience
            waiting[name] = {"start": answer.start, "until": until, "rule": answer.rule}
        else:
            assert answer.verdict == QUEUE_FULL
            assert len([w for w in waiting.values() if w["until"] > scripts.now]) >= capacity
            assert answer.wait > 0
            refused += 1
    begun.sort()
    assert most_in_any(begun, 1000) <= max(1, rate)
    if rate < 1:
        assert min(b - a for a, b in zip(begun, begun[1:])) >= 1000 / rate
    assert len(begun) > 30
    assert rate > 3 or refused > 10


def rule_of(rate: float) -> tuple[int, int]:
    return max(1, math.floor(rate)), SECOND if rate >= 1 else math.ceil(1000 / rate) + 25


@pytest.mark.parametrize("seed", range(8))
def test_a_queue_whose_rate_changes_keeps_the_rate(scripts, seed):
    """Two nodes, of which one hears of a change up to a second later; then it moves its places."""
    rng = random.Random(seed)
    capacity, patience = 40, 20_000
    rates = [(scripts.now, rng.choice([0.5, 2, 5, 20]))]
    nodes = [{"rate": rates[0][1], "read": 0, "waiting": {}, "news": None} for _ in range(2)]
    begun, moved = [], 0

    def until(now):
        for node in nodes:
            for name in [n for n, (start, _) in node["waiting"].items() if 0 < start <= now]:
                begun.append(node["waiting"].pop(name)[0])

    def learn(node):
        nonlocal moved
        node["rate"], node["read"] = node["news"][1:]
        node["news"] = None
        places = sorted(((n, *w) for n, w in node["waiting"].items()), key=lambda p: (not p[1], p[1]))
        if places:
            moved += 1
            rule, starts = scripts.move(places, (*rule_of(node["rate"]), capacity, patience), node["read"])
            node["waiting"] = {p[0]: (start, rule) for p, start in zip(places, starts)}

    for step in range(3000):
        scripts.now += rng.choice([0, 0, 5, 40, 130])
        until(scripts.now)
        for node in nodes:
            if node["news"] and node["news"][0] <= scripts.now:
                learn(node)
        if rng.random() < 0.01:
            rate = rng.choice([0.5, 1, 2, 5, 7.5, 20])
            rates.append((scripts.now, rate))
            for node, delay in zip(rng.sample(nodes, 2), (0, rng.randint(0, 1000 - 130))):  # it hears at the next step
                soon = min(scripts.now + delay, node["news"][0] if node["news"] else math.inf)
                node["news"] = (soon, rate, scripts.now * 1000)
            scripts.now += 1
            continue
        node = rng.choice(nodes)
        if node["waiting"] and rng.random() < 0.15:
            name = rng.choice(list(node["waiting"]))
            scripts.leave(name, *node["waiting"].pop(name))
            continue
        behind = max((start or scripts.now + patience for start, _ in node["waiting"].values()), default=0)
        answer = scripts.admit(queue=(*rule_of(node["rate"]), capacity, patience), name=f"n{step}", behind=behind, read=node["read"])
        if answer.verdict == ADMITTED:
            begun.append(scripts.now)
        elif answer.verdict == WAITS:
            node["waiting"][f"n{step}"] = (answer.start, answer.rule)
        else:
            assert answer.verdict == QUEUE_FULL
    assert moved > 10 and len(begun) > 100
    begun.sort()
    ends = [at for at, _ in rates[1:]] + [scripts.now]
    for (at, rate), end in zip(rates, ends):
        inside = [t for t in begun if at + 1000 < t <= end]  # whoever has not heard of it has by then
        assert not inside or most_in_any(inside, 1000) <= max(1, rate), (at, rate)
    for first, t in enumerate(begun):
        held = [rate for (at, rate), end in zip(rates, ends) if at <= t + 1000 and end >= t - 1000]
        last = bisect.bisect_right(begun, t + 1000)
        assert last - first <= max(1, *held)


class QueueNode:
    """The places of a node as admission_queue.c and admission_forward.c keep them: its first waiter takes its next start."""

    def __init__(self, scripts, rng, number: int):
        self.scripts, self.rng, self.number, self.names = scripts, rng, number, 0
        self.places: dict[str, tuple[float, float]] = {}  # start (0: none), rule

    def name(self) -> str:
        self.names += 1
        return f"{self.number}-{self.names}"

    def in_order(self):
        return sorted(self.places, key=lambda n: (self.places[n][0] == 0, self.places[n][0]))

    def begin(self) -> list[float]:
        begun = [name for name, (start, _) in self.places.items() if 0 < start <= self.scripts.now]
        return [self.places.pop(name)[0] for name in begun]

    def leave(self):
        if self.places:
            name = self.in_order()[-1]
            self.scripts.leave(name, *self.places.pop(name))

    def look(self, near, answered=True, in_turn=True):
        """Nobody gets a later start, nor one that is before his turn. True: something changed."""
        names, waits, free = self.in_order(), self.scripts.to_come("w"), self.scripts.to_come("f")
        if not names:
            return False
        had = [self.places[n][0] for n in names]
        rule = self.places[names[0]][1]
        _, new = self.scripts.forward(list(zip(names, had)), rule, near)
        assert all(self.scripts.now < start < (old or math.inf) for old, start in zip(had, new) if start)
        then = sorted(start or old for old, start in zip(had, new) if start or old)
        turns = sorted(waits + free)
        for old, start in zip(had, then if in_turn else []):
            assert start <= self.scripts.now + near or not old or start >= turns[bisect.bisect_right(waits, old) - 1]
        for name, old, start in zip(names, had, new):
            if start and answered:
                self.places[name] = (start, rule)
                if old:
                    self.scripts.leave(self.name(), old, rule)
        return any(new)


@pytest.mark.parametrize("seed", range(12))
def test_starts_that_are_given_back_come_forward(scripts, seed):
    """Three nodes; waiters go, nodes look; the rate holds, and in the end nothing is left out. Answers that are lost change
    nothing about the rate."""
    rng = random.Random(seed)
    rate, near = [(0.5, 0), (1, 1500), (3, 0), (20, 1500)][seed % 4]
    starts, span = rule_of(rate)
    patience, loses = [60_000, 20_000, 30_000][seed // 4], seed >= 8
    nodes = [QueueNode(scripts, rng, n) for n in range(3)]
    begun, moved = [], 0

    def arrive(node):
        name = node.name()
        behind = max((start or scripts.now + patience for start, _ in node.places.values()), default=0)
        answer = scripts.admit(queue=(starts, span, 60, patience), name=name, behind=behind)
        if answer.verdict == ADMITTED:
            begun.append(scripts.now)
        elif answer.verdict == WAITS:
            node.places[name] = (answer.start, answer.rule)

    for _ in range(1500):
        scripts.now += rng.choice([0, 0, 5, 40, 130])
        for node in nodes:
            begun += node.begin()
        node, what = rng.choice(nodes), rng.random()
        if what < 0.25:
            for _ in range(rng.randint(1, 8)):
                arrive(node)
        elif what < 0.35:
            for _ in range(rng.choice([1, 3, len(node.places)])):
                node.leave()
        else:
            moved += node.look(near, not loses or rng.random() < 0.8, not loses)
    assert moved > 10 and len(begun) > 20
    begun += [start for node in nodes for start, _ in node.places.values() if start]
    begun.sort()
    assert most_in_any(begun, 1000) <= max(1, rate)
    assert rate >= 1 or min(b - a for a, b in zip(begun, begun[1:])) >= 1000 / rate
    if loses:
        return
    for _ in range(500):
        if not any([node.look(0) for node in nodes]):
            break
    waits, free = sorted(start for node in nodes for start, _ in node.places.values() if start), scripts.to_come("f")
    assert waits == sorted(waits + free)[: len(waits)]


def test_a_queue_under_load_wastes_nothing(scripts):
    starts, begun = 4, []
    for _ in range(600):
        answer = scripts.admit(queue=(starts, SECOND, 1000, 3000))
        if answer.verdict == ADMITTED:
            begun.append(scripts.now)
        elif answer.start:
            begun.append(answer.start)
        scripts.now += 100
    assert most_in_any(sorted(begun), 1000) == starts
    assert len(begun) >= 0.97 * starts * 60


def test_refusals_take_nothing(scripts):
    """A request that a later stage refuses has not been counted by an earlier one."""
    keys = (("k1", 1),)
    assert scripts.admit(limits=(10, 0, 0), places=5, queue=(5, SECOND, 2, 1000), candidates=keys).verdict == ADMITTED
    before = {k: scripts.redis.dump(k) for k in scripts.redis.keys("apiproxy:*")}
    for _ in range(20):
        assert scripts.admit(limits=(10, 0, 0), places=5, queue=(5, SECOND, 2, 1000), candidates=keys).verdict == KEYS_LIMITED
    assert {k: scripts.redis.dump(k) for k in scripts.redis.keys("apiproxy:*")} == before
    for _ in range(6):
        last = scripts.admit(limits=(10, 0, 0), queue=(1, SECOND, 2, 0))
    assert last.verdict == QUEUE_FULL
    before = {k: scripts.redis.dump(k) for k in scripts.redis.keys("apiproxy:*")}
    assert scripts.admit(limits=(10, 0, 0), queue=(1, SECOND, 2, 0)).verdict == QUEUE_FULL
    assert {k: scripts.redis.dump(k) for k in scripts.redis.keys("apiproxy:*")} == before


def test_a_key_fails_cools_is_tried_and_comes_back(scripts):
    nothing, success, throttled, rejected, failed = range(5)
    keys = (("a", 0),)
    ask = lambda: scripts.report("", nothing, candidates=keys)  # noqa: E731
    for _ in range(2):
        scripts.report("a", failed, 500)
    assert ask().verdict == ADMITTED
    scripts.report("a", success, 200)
    for pause in (10, 20, 40, 80, 160, 300, 300):
        if pause == 10:
            for _ in range(3):
                scripts.report("a", failed, 502)
        answer = ask()
        assert (answer.verdict, answer.wait) == (NO_KEY, pause * 1000)
        scripts.now += pause * 1000 - 1
        assert ask().verdict == NO_KEY
        scripts.now += 1
        trial = ask()
        assert trial.verdict == ADMITTED and trial.trial
        assert ask().verdict == NO_KEY  # one goes first
        scripts.report("a", success, 200)  # of a request from before: says nothing
        assert ask().verdict == NO_KEY
        scripts.report("a", failed, 500, trial=trial.trial)
    scripts.now += 300_000
    trial = ask()
    scripts.report("a", nothing, 400, trial=trial.trial)
    trial = ask()
    assert trial.trial
    scripts.report("a", success, 200, trial=trial.trial)
    assert ask().trial == 0
    scripts.report("a", throttled, 429, 7000)
    scripts.report("a", throttled, 429, 2000)  # a storm does not shorten it, nor make it longer
    assert (ask().verdict, ask().wait) == (KEYS_LIMITED, 7000)
    scripts.report("a", rejected, 401)
    assert (ask().verdict, ask().wait) == (NO_KEY, 300_000)
    scripts.now += 300_000
    assert ask().trial
    scripts.now += 60_000  # who tried it never came back
    assert ask().trial
