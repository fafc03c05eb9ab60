"""Back-pressure at full size: 100 MB to a reader of 2 MB/s. Each test takes 50 seconds."""

from __future__ import annotations

import unittest

from tests.behaviour import test_back_pressure

_TOTAL = 100_000_000
_RATE = 2_000_000.0
# Seconds. A client with the system's own, large buffers answers a ping after what stands in front of it.
_PING_INTERVAL = 5.0


class FullSlowClient(test_back_pressure.SlowClient):
    """The upstream sends 100 MB at once, the client reads 2 MB/s."""

    total, rate = _TOTAL, _RATE
    ping_interval = _PING_INTERVAL
    receive_buffer: int | None = None


class FullSlowUpstream(test_back_pressure.SlowUpstream):
    """The client sends 100 MB at once, the upstream reads 2 MB/s."""

    total, rate = _TOTAL, _RATE
    ping_interval = _PING_INTERVAL


class FrequentPings(test_back_pressure.SlowClient):
    """The first again, with a small buffer at the client, and pings so frequent that several wait for it."""

    total, rate = _TOTAL, _RATE
    ping_interval = 0.2


if __name__ == "__main__":
    unittest.main()
