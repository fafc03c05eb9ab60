"""What docs/console.md says that a person reads is what the browser tests expect, for all that there is."""

from __future__ import annotations

import re
import unittest

from tests.integration.console_causes import ENDS, REFUSALS
from tests.integration.console_document import (
    BEGIN,
    CONNECTED_PICTURE,
    DOCUMENT,
    END,
    PICTURES,
    picture_name,
    render,
)
from tests.integration.web_clients import CLIENTS
from wsproxy.exceptions import Refused
from wsproxy.telemetry import causes

_MOST_BYTES = 2_000_000
_BY_HTTP = {"limit-screenshots", "limit-tickets", "limit-requests"}  # of requests that are no upgrades
_NOT_TOLD = {"client-gone", "aborted", "failed", causes.OTHER}  # to a person in front of a page


def _by_http_only(kind: type[Refused]) -> set[str]:
    slugs = set() if kind.close_code else {kind.slug}
    return slugs.union(*(_by_http_only(leaf) for leaf in kind.__subclasses__()))


class ConsoleDocument(unittest.TestCase):
    def test_tables(self) -> None:
        """The tables are those of the table of causes; ``scripts/console_docs`` writes them."""
        written = DOCUMENT.read_text(encoding="utf-8").partition(BEGIN)[2].partition(END)[0]
        self.assertEqual(written.strip(), render().strip())

    def test_pictures(self) -> None:
        """Each picture that is linked is there, none besides, and they are small."""
        expected = {
            picture_name(cause, client)
            for cause in (*REFUSALS, *ENDS)
            for client in CLIENTS
            if cause.words(client) is not None
        }
        pictures = list(PICTURES.iterdir())
        self.assertEqual({picture.name for picture in pictures}, expected | {CONNECTED_PICTURE})
        self.assertLess(sum(picture.stat().st_size for picture in pictures), _MOST_BYTES)

    def test_every_refusal(self) -> None:
        """Every refusal that a Close can tell is in the table."""
        told = {slug for cause in REFUSALS for slug in re.findall("`(.*)`", cause.close or "")}
        told.add("kicked")  # told in the words of a session that ends, though it has not begun
        self.assertEqual(told, causes.REFUSALS - _by_http_only(Refused) - _BY_HTTP - {causes.OTHER})

    def test_every_end(self) -> None:
        """So is every end that we decide, and one that a peer's Close is."""
        told = {cause.name for cause in ENDS}
        closes = {cause for cause in causes.ENDINGS if cause.startswith("close-")}
        self.assertLessEqual(
            causes.ENDINGS - closes - _NOT_TOLD - {"message-too-big", "upstream-refused"}, told
        )
        self.assertIn("close", told)


if __name__ == "__main__":
    unittest.main()
