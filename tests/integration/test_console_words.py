"""What a person reads when a console is refused or ends, in our page and in stock noVNC."""

from __future__ import annotations

from collections.abc import Iterable

from tests.integration.console_causes import ENDS, REFUSALS, Cause
from tests.integration.console_visits import ConsoleVisits
from tests.integration.programs import needs
from tests.integration.web_clients import CLIENTS


@needs("chromium", "chromium")
class ConsoleWords(ConsoleVisits):
    """Each cause with each client."""

    def read(self, causes: Iterable[Cause]) -> None:
        for cause in causes:
            for client in CLIENTS:
                if (words := cause.words(client)) is None:
                    continue
                with self.subTest(cause=cause.name, client=client.name), self.visit(client) as visit:
                    cause.provoke(visit)
                    visit.told(words)

    def test_refusals(self) -> None:
        """Before anything was seen everybody reads why, in our page and in noVNC."""
        self.read(REFUSALS)

    def test_ends(self) -> None:
        """After that our page says why, and noVNC that it is disconnected."""
        self.read(ENDS)
