"""One suite for every way of serving consoles: the socket server, and WSGI servers with the adapter.

The tests are in ``test_session_ends.py``, ``test_byte_identity.py``, ``test_back_pressure.py``,
``test_refusals.py`` and ``test_leaks.py`` of ``tests/behaviour``, and go through the socket server there.
What starts a proxy for them, and looks into it, is a :class:`.fronts.Front`;
``tests/integration/test_conformance.py`` runs them through the others.
"""
