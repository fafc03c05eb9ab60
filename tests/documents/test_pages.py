"""What the tests of documents take for prose, for a sentence and for a link."""

from __future__ import annotations

import tempfile
import unittest
from pathlib import Path

from .pages import Block, Page, sentences, words

_TEXT = """\
# Some *title*, with `code`

A first
paragraph. [A link](page.md#part), and `[no](link)`.

    code

- one item
  of two lines
- another

  ```python
  code = "[no](link)"
  ```

| a | b \\| c |
|---|---|
"""


class PageTest(unittest.TestCase):
    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.page = Page(Path(directory.name, "page.md"))
        self.page.path.write_text(_TEXT, encoding="utf-8")

    def test_blocks(self) -> None:
        """Paragraphs, items, headings and cells are found, and code is left out."""
        self.assertEqual(
            list(self.page.blocks()),
            [
                Block(1, "Some *title*, with `code`", "heading"),
                Block(3, "A first paragraph. [A link](page.md#part), and `[no](link)`."),
                Block(8, "one item of two lines"),
                Block(10, "another"),
                Block(16, "a", "cell"),
                Block(16, "b \\| c", "cell"),
            ],
        )

    def test_links(self) -> None:
        """Links in code are none."""
        self.assertEqual(list(self.page.links()), [(3, "page.md#part")])

    def test_anchors(self) -> None:
        """An anchor is what GitHub makes of a heading."""
        self.assertEqual(self.page.anchors(), {"some-title-with-code"})


class SentencesTest(unittest.TestCase):
    def test_ends(self) -> None:
        """A sentence ends at a full stop before a space; a code span is one word, and a dash is none."""
        block = Block(1, "**Bold.** See `a b. c` - [the page](x.md). Version 1.2 is new: read it?")
        found = sentences(block)
        self.assertEqual(found, ["Bold.", "See code - the page.", "Version 1.2 is new: read it?"])
        self.assertEqual([words(sentence) for sentence in found], [1, 4, 6])


if __name__ == "__main__":
    unittest.main()
