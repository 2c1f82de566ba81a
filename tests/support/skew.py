"""Clocks of their own for gateways (libfaketime): wrong, too fast, set while they run.

    node = Gateway(**settings, **Clock(offset=3600).environment)

The gateway alone lives by such a clock. It must not start a redis-server of its own, which would inherit it.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

TAKEN_OVER = 2.5


def library() -> str:
    found = list(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
    assert found, "libfaketime is missing: scripts/install-deps.sh test"
    return str(found[0])


class Clock:
    """`offset` seconds ahead of the machine's, and `rate` as fast from the gateway's start on.

    monotonic: the monotonic clock is as wrong and as fast, too: another machine's. Else only the time
    of day is, as on a machine whose clock is set by hand. It lasts as long as this object.
    """

    def __init__(self, offset: float = 0, rate: float = 1, monotonic: bool = False):
        self.rate = rate
        self.monotonic = monotonic
        self.folder = tempfile.TemporaryDirectory(prefix="apiproxy-clock-")
        self.file = Path(self.folder.name) / "faketimerc"
        self.set(offset)

    def set(self, offset: float):
        """Sets the clock, also while the gateway runs: it notices within TAKEN_OVER seconds."""
        self.offset = offset
        rate = "" if self.rate == 1 else f" x{self.rate}"
        fresh = self.file.with_suffix(".new")
        fresh.write_text(f"{offset:+.3f}{rate}\n")
        fresh.replace(self.file)

    @property
    def environment(self) -> dict[str, str]:
        return {
            "LD_PRELOAD": library(),
            "FAKETIME_TIMESTAMP_FILE": str(self.file),
            "FAKETIME_CACHE_DURATION": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "0" if self.monotonic else "1",
        }
