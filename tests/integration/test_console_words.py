"""What a person reads when a console is refused or ends, in our page and in stock noVNC."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import ClassVar

from tests.integration.console_causes import ENDS, REFUSALS, Cause
from tests.integration.console_document import CONNECTED_PICTURE, picture_name, save_picture
from tests.integration.console_visits import ConsoleVisits
from tests.integration.person import screen_of
from tests.integration.programs import needs
from tests.integration.web_clients import CLIENTS, CONSOLE_PAGE, WebClient
from tests.support.proxy_process import wait_until

_WITHIN = 30.0


@needs("chromium", "chromium")
class ConsoleWords(ConsoleVisits):
    """Each cause with each client.

    :cvar takes_pictures: whether docs/console.md gets pictures of it.
    """

    takes_pictures: ClassVar[bool] = False

    def read(self, causes: Iterable[Cause]) -> None:
        for cause in causes:
            for client in CLIENTS:
                if (words := cause.words(client)) is None:
                    continue
                with self.subTest(cause=cause.name, client=client.name), self.visit(client) as visit:
                    cause.provoke(visit)
                    visit.told(words)
                    if self.takes_pictures:
                        save_picture(picture_name(cause, client), visit.picture(words))

    def shows_desktop(self, client: WebClient) -> bool:
        return screen_of(self.browser, client.canvas) == self.desktop.screenshot()

    def test_connected(self) -> None:
        """A console opens with each client, in every pixel: not all is a refusal."""
        for client in CLIENTS:
            with self.subTest(client=client.name), self.visit(client) as visit:
                visit.connect(visit.start_proxy())
                self.assertTrue(wait_until(functools.partial(self.shows_desktop, client), _WITHIN))
                if self.takes_pictures and client is CONSOLE_PAGE:
                    save_picture(CONNECTED_PICTURE, self.browser.screenshot())

    def test_refusals(self) -> None:
        """Before anything was seen everybody reads why, in our page and in noVNC."""
        self.read(REFUSALS)

    def test_ends(self) -> None:
        """After that our page says why, and noVNC that it is disconnected."""
        self.read(ENDS)
