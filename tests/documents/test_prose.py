"""Lines and sentences of README.md and docs/ are short."""

from __future__ import annotations

import unittest

from .pages import Page, pages, sentences, words

MOST_CHARACTERS = 100
"""Of a line that is in no table and in no code block."""

MOST_WORDS = 25
"""Of a sentence; a code span counts as one word."""

MOST_LINES_OF_README = 130

LOOKED_UP = (
    "README.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "docs/operate/*.md",
    "docs/reference/*.md",
    "docs/topics/*.md",
)
"""Where the cells of tables are sentences, too."""

PRINTED = {"docs/performance.md", "docs/soak.md", "docs/conformance.md"}
"""Contain what scripts printed."""

GENERATED = {"docs/reference/settings.md"}
"""The cells of its table are the texts of the settings."""


class LinesTest(unittest.TestCase):
    def test_length(self) -> None:
        """Every line ends by the hundredth character, outside of tables and code."""
        for page in pages("README.md", "CONTRIBUTING.md", "SECURITY.md", "docs/**/*.md"):
            for number, line in page.numbered():
                if not line.startswith("|"):
                    with self.subTest(f"{page.name}:{number}"):
                        self.assertLessEqual(len(line), MOST_CHARACTERS)

    def test_readme(self) -> None:
        """The README can be read to its end."""
        [readme] = pages("README.md")
        self.assertLessEqual(len(readme.path.read_text(encoding="utf-8").splitlines()), MOST_LINES_OF_README)


class SentencesTest(unittest.TestCase):
    def test_length(self) -> None:
        """No sentence has more than twenty-five words."""
        looked_up = {page.name for page in pages(*LOOKED_UP)}
        self.assertGreater(len(looked_up), 20)
        for page in pages("*.md", "docs/**/*.md"):
            if page.name not in PRINTED:
                kinds = {"prose", "cell"} if page.name in looked_up - GENERATED else {"prose"}
                self._check(page, kinds)

    def _check(self, page: Page, kinds: set[str]) -> None:
        for block in page.blocks():
            for sentence in sentences(block) if block.kind in kinds else ():
                with self.subTest(f"{page.name}:{block.line}", sentence=sentence):
                    self.assertLessEqual(words(sentence), MOST_WORDS)


if __name__ == "__main__":
    unittest.main()
