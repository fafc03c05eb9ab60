"""The conformance suite through WSGI servers that run :class:`.ConsoleApp`: real ones, real TLS.

Each class is one of the suite's through one server, such as ``GunicornTLSEnds``.
"""

from __future__ import annotations

from tests.conformance.suites import AREAS, through
from tests.conformance.wsgi_servers import FRONTS

for _front in FRONTS:
    for _suites in AREAS.values():
        for _suite in _suites:
            _class = through(_front, _suite, __name__)
            globals()[_class.__name__] = _class
del _front, _suites, _suite, _class
