"""Links of the documents lead somewhere, and so do the names of documents in code."""

from __future__ import annotations

import re
import unittest

from .pages import ROOT, Page, pages

_NAMED = re.compile(r"(?<![\w./-])docs/[\w/-]+\.(?:md|png)")
_CODE = ("wsproxy/**/*.py", "tests/**/*.py", "examples/**/*", "scripts/*", ".ci/*", "compat/**/*.py")
_ELSEWHERE = {"docs/API.md"}  # of noVNC


class LinksTest(unittest.TestCase):
    def test_links(self) -> None:
        """Each link to a file leads to one that is there, and each anchor to a heading of it."""
        for page in pages("*.md", "docs/**/*.md"):
            for line, target in page.links():
                if "://" not in target:
                    with self.subTest(f"{page.name}:{line}", target=target):
                        self._check(page, target)

    def _check(self, page: Page, target: str) -> None:
        path, _, anchor = target.partition("#")
        file = (page.path.parent / path).resolve() if path else page.path
        self.assertTrue(file.exists(), "there is no such file")
        self.assertTrue(file.is_relative_to(ROOT.resolve()))
        if anchor:
            self.assertIn(anchor, Page(file).anchors(), "there is no such heading")

    def test_named_in_code(self) -> None:
        """Each page that code, a script or an example names is there."""
        for pattern in _CODE:
            for path in sorted(file for file in ROOT.glob(pattern) if file.is_file()):
                for name in _NAMED.findall(path.read_text(encoding="utf-8", errors="replace")):
                    if name not in _ELSEWHERE:
                        with self.subTest(path.relative_to(ROOT).as_posix(), name=name):
                            self.assertTrue((ROOT / name).exists())

    def test_every_page_is_found(self) -> None:
        """Each page is in a table of contents."""
        indexes = pages("docs/index.md", "docs/**/index.md")
        listed = {
            (index.path.parent / line).with_suffix(".md").resolve()
            for index in indexes
            for line in index.path.read_text(encoding="utf-8").splitlines()
        }
        for page in pages("docs/**/*.md"):
            if page.name != "docs/index.md":
                with self.subTest(page.name):
                    self.assertIn(page.path.resolve(), listed)


if __name__ == "__main__":
    unittest.main()
