"""The committed inputs of the fuzzer: one for each kind of input, and for each mistake that was found."""

from __future__ import annotations

import unittest

from wsproxy.exceptions import BadRequest

from .targets import CORPUS, TARGETS
from .texts import assert_own_text


class Corpus(unittest.TestCase):
    def test_every_input(self) -> None:
        """Every property holds for every input of every target."""
        for name, check in TARGETS.items():
            inputs = sorted((CORPUS / name).iterdir())
            self.assertGreater(len(inputs), 20, name)
            for file in inputs:
                with self.subTest(target=name, input=file.name):
                    check(file.read_bytes())

    def test_properties_can_fail(self) -> None:
        """A text that quotes its input is noticed: the check of texts is not empty."""
        assert_own_text(BadRequest("the request head is malformed"))
        for error in (
            BadRequest("bad path /x.y.z/vm"),
            BadRequest("the token is not valid", log_detail="/x.y.z/vm"),
        ):
            self.assertRaises(AssertionError, assert_own_text, error)


class Directories(unittest.TestCase):
    def test_targets(self) -> None:
        """There is a corpus for each target, and no other."""
        self.assertEqual({each.name for each in CORPUS.iterdir()}, set(TARGETS))
