"""The file of revocation rules: what it keeps and survives, and when a process does not start with it."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
import time
import unittest
from collections.abc import Callable
from typing import Any
from unittest import mock

from wsproxy.exceptions import ConfigError
from wsproxy.runtime.deadline import Clock
from wsproxy.state.console_policies import ConsolePolicies
from wsproxy.state.limits import LimitRules, Limits
from wsproxy.state.participant.participant import Kick, Participant, ParticipantRules
from wsproxy.state.revocations import Match, Rule
from wsproxy.state.stores.places import StateRules
from wsproxy.state.stores.rule_file import RuleFile, open_rule_file, rules_in
from wsproxy.testing.case import LeakTestCase
from wsproxy.tokens.claims import Grant, TokenKey

_NOW = 1.7e9
_OLD = (Rule("r1", "k1", _NOW, math.inf, Match(user="5"), "pod-1"),)
_NEW = (*_OLD, Rule("r2", "k2", _NOW + 0.1, _NOW + 60, Match(namespace='},{"\n\u202e', vmi="vm"), ""))
_CALLS = ("open", "fchmod", "write", "fsync", "close", "replace", "unlink")
_HOLD = """
import sys
from wsproxy.state.stores.rule_file import RuleFile
file = RuleFile(sys.argv[1])
print("held", flush=True)
while True:
    file.save(file.rules)
"""


class _Killed(BaseException):
    """The process is killed at this moment: nothing that it does afterwards counts."""


class RuleFileCase(LeakTestCase):
    def setUp(self) -> None:
        super().setUp()
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = directory.name
        self.path = os.path.join(directory.name, "revocations")

    def opened(self, path: str | None = None) -> RuleFile:
        file = RuleFile(path or self.path)
        self.addCleanup(file.close, ())
        return file

    def write(self, text: str | bytes) -> None:
        with open(self.path, "wb") as file:
            file.write(text if isinstance(text, bytes) else text.encode())


class Contents(RuleFileCase):
    def test_none_yet(self) -> None:
        """A missing file is an empty one, and the first save makes it for its owner alone."""
        file = self.opened()
        self.assertEqual(file.rules, ())
        self.assertEqual(file.save(_OLD), "")
        self.assertEqual(os.stat(self.path).st_mode & 0o777, 0o600)

    def test_again(self) -> None:
        """What is saved is read again: rules without an end, lifts, and any text."""
        rules = (*_NEW, Rule.lift("k3", _NOW, math.inf, "pod-2"), Rule.of_token(_OLD[0], "ab" * 32, 2e9))
        file = self.opened()
        file.save(rules)
        file.close(())
        self.assertEqual(self.opened().rules, rules)

    def test_none_left(self) -> None:
        file = self.opened()
        file.save(_OLD)
        file.save(())
        self.assertEqual(rules_in(self.path), ())

    def test_link(self) -> None:
        """A link stays one; the file that it names is replaced."""
        link = os.path.join(self.directory, "link")
        os.symlink(self.path, link)
        self.opened(link).save(_OLD)
        self.assertTrue(os.path.islink(link))
        self.assertEqual(rules_in(self.path), _OLD)

    def test_mode(self) -> None:
        """A file that others could read, or write, is nobody else's after a save."""
        self.write('{"schema": 1, "rules": []}')
        os.chmod(self.path, 0o666)
        with open(f"{self.path}.new", "w", encoding="ascii"):
            os.chmod(f"{self.path}.new", 0o666)
        self.opened().save(_OLD)
        self.assertEqual(os.stat(self.path).st_mode & 0o777, 0o600)

    def test_later_fields(self) -> None:
        """Fields that this version does not know are ignored, and missing ones have their defaults."""
        rule = {
            "id": "r",
            "kick": "k",
            "made_at": 1,
            "until": "inf",
            "match": {"user": "5", "new": ""},
            "x": 2,
        }
        self.write(json.dumps({"schema": 1, "y": 0, "rules": [rule]}))
        self.assertEqual(self.opened().rules, (Rule("r", "k", 1.0, math.inf, Match("5")),))

    def test_later_criterion(self) -> None:
        """A rule with a criterion that this version does not know would refuse too much: it is left out."""
        rule = {"id": "r", "kick": "k", "made_at": 1, "until": "inf", "match": {"user": "5", "new": "x"}}
        self.write(json.dumps({"schema": 1, "rules": [rule, rule | {"id": "r2", "match": {"user": "6"}}]}))
        self.assertEqual([one.id for one in self.opened().rules], ["r2"])

    def test_size(self) -> None:
        """As many rules as there may be take less than a second to write."""
        file = self.opened()
        many = [
            Rule(f"k{n}.{n:064x}", f"k{n}", _NOW, math.inf, Match(digest=f"{n:064x}")) for n in range(100_000)
        ]
        before = time.thread_time()  # the wall clock would measure the other tests, too
        file.save(many)
        self.assertLess(time.thread_time() - before, 1.0)
        self.assertEqual(len(rules_in(self.path)), 100_000)


class Faults(RuleFileCase):
    def assert_fault(self, fault: str, path: str | None = None) -> None:
        with self.assertRaises(ConfigError) as caught:
            self.opened(path)
        (text,) = caught.exception.faults
        self.assertIn(fault, text)
        self.assertIn(path or self.path, text)

    def test_malformed(self) -> None:
        """With a file that is wrong the process does not start, and leaves the file as it is."""
        good = {"id": "r", "kick": "k", "made_at": 1, "until": 2, "match": None}
        for text, fault in (
            (b"", "it is no JSON; restore it, or remove it"),
            ('{"schema": 1, "rules": [{"id"', "it is no JSON"),
            (b"\xff\xfe", "it is no JSON"),
            ("[" * 200_000, ""),
            ("[]", "it is no file of revocations"),
            ("{}", "it is no file of revocations"),
            ('{"schema": true, "rules": []}', "it is no file of revocations"),
            ('{"schema": 0, "rules": []}', "it is no file of revocations"),
            ('{"schema": 2, "rules": []}', "a later version of wsproxy has written it (schema 2)"),
            ('{"schema": 1}', "one of its rules is wrong"),
            ('{"schema": 1, "rules": {}}', "one of its rules is wrong"),
            ('{"schema": 1, "rules": [{}]}', "one of its rules is wrong"),
            (json.dumps({"schema": 1, "rules": [good | {"until": math.nan}]}), "it is no JSON"),
            (json.dumps({"schema": 1, "rules": [good | {"until": None}]}), "one of its rules is wrong"),
            (
                json.dumps({"schema": 1, "rules": [good | {"match": {"user": 5}}]}),
                "one of its rules is wrong",
            ),
        ):
            with self.subTest(text[:50]):
                self.write(text)
                self.assert_fault(fault)
                with open(self.path, "rb") as file:
                    self.assertEqual(file.read(), text if isinstance(text, bytes) else text.encode())
        self.write('{"schema": 1, "rules": []}')
        self.opened()  # the lock is free

    def test_unreadable(self) -> None:
        os.mkdir(self.path)
        self.assert_fault("it cannot be read: Is a directory")
        nowhere = os.path.join(self.directory, "nowhere", "file")
        self.assert_fault(f"its lock {nowhere}.lock cannot be had: No such file or directory", nowhere)

    def test_two_processes(self) -> None:
        """A second process does not start with the same file; after a SIGKILL of the first one it does."""
        file = RuleFile(self.path)
        file.save(_NEW)
        file.close(())
        with subprocess.Popen(
            [sys.executable, "-c", _HOLD, self.path], stdout=subprocess.PIPE, text=True
        ) as other:
            try:
                assert other.stdout
                self.assertEqual(other.stdout.readline(), "held\n")
                self.assert_fault("another process has it; stop that one first")
            finally:
                other.kill()
        self.assertEqual(self.opened().rules, _NEW)

    def test_settings(self) -> None:
        """The settings name a file, or none."""
        self.assertIsNone(open_rule_file(StateRules()))
        file = open_rule_file(StateRules(file=self.path))
        assert file
        file.close(())


class Steps(RuleFileCase):
    """What is left if a save fails at any step."""

    def at_step(self, number: int, fail: Callable[[str], BaseException], *, dead: bool) -> mock.Mock:
        """Return what stands in for ``os``: its n-th call that changes anything raises ``fail(name)``.

        :param dead: whether all later calls fail, too.
        """
        stand_in, made = mock.Mock(wraps=os), [0]

        def wrapped(name: str) -> Callable[..., Any]:
            def call(*arguments: Any) -> Any:
                made[0] += 1
                if made[0] == number or (dead and made[0] > number):
                    if name == "write" and made[0] == number:
                        os.write(arguments[0], bytes(arguments[1])[:20])
                    if name == "close":
                        os.close(*arguments)  # a dead process has no descriptors
                    raise fail(name)
                return getattr(os, name)(*arguments)

            return call

        for name in _CALLS:
            setattr(stand_in, name, wrapped(name))
        for name in ("O_WRONLY", "O_CREAT", "O_EXCL", "O_CLOEXEC", "O_RDONLY", "O_DIRECTORY"):
            setattr(stand_in, name, getattr(os, name))
        stand_in.path = os.path
        stand_in.made = made
        return stand_in

    def saved_with(self, file: RuleFile, stand_in: mock.Mock) -> str | None:
        """Save; return the answer, or None if the process was killed."""
        with mock.patch("wsproxy.state.stores.rule_file.os", stand_in):
            try:
                return file.save(_NEW)
            except _Killed:
                return None

    def steps(self) -> range:
        """Return the numbers of all steps of a save."""
        file, stand_in = RuleFile(self.path), self.at_step(0, OSError, dead=False)
        self.assertEqual(self.saved_with(file, stand_in), "")
        file.close(())
        self.assertGreaterEqual(stand_in.made[0], 8)
        return range(1, stand_in.made[0] + 1)

    def test_killed(self) -> None:
        """Whenever the process dies, the next one finds the rules from before or those from after."""
        found = []
        for number in self.steps():
            file = RuleFile(self.path)
            file.save(_OLD)
            self.assertIsNone(self.saved_with(file, self.at_step(number, _Killed, dead=True)))
            file._unlock()  # as the kernel does
            found.append(rules_in(self.path))
            self.assertIn(found[-1], (_OLD, _NEW))
        self.assertEqual(found, sorted(found, key=len), "once the new ones are there, they stay")
        self.assertGreaterEqual(found.count(_OLD), 5)
        self.assertGreaterEqual(found.count(_NEW), 2)

    def test_full_disk(self) -> None:
        """If a step fails, one line says so, the file has what it had, and the next save mends it."""
        for number in self.steps():
            file = RuleFile(self.path)
            file.save(_OLD)
            stand_in = self.at_step(number, lambda name: OSError(28, f"No space left ({name})"), dead=False)
            with self.subTest(number), self.assertLogs("wsproxy.state", "ERROR") as logs:
                told = self.saved_with(file, stand_in)
                self.assertIn("No space left", told or "")
                self.assertEqual(
                    [record.getMessage() for record in logs.records],
                    [f"cannot save the revocations in {self.path}: {told}; they hold until a restart"],
                )
                self.assertFalse(os.path.exists(f"{self.path}.new"))
                self.assertIn(rules_in(self.path), (_OLD, _NEW))
            file.close(_NEW)  # tries once more
            self.assertEqual(rules_in(self.path), _NEW)

    def test_closed(self) -> None:
        """After the end of the process's part, another one may have the file; nothing writes over it."""
        file = RuleFile(self.path)
        file.save(_OLD)
        file.close(())
        file.close(_NEW)
        with self.assertLogs("wsproxy.state", "ERROR"):
            self.assertEqual(file.save(_NEW), "the proxy has stopped")
        self.assertEqual(rules_in(self.path), _OLD)


class OfParticipant(RuleFileCase):
    """A process that keeps its rules."""

    def participant(self, more: Callable[[list[Rule]], list[Rule]] = lambda rules: []) -> Participant:
        clock: Clock = lambda: _NOW  # noqa: E731
        made = Participant(
            None,
            ParticipantRules(ConsolePolicies(()), name="pod-1"),
            Limits(LimitRules(), clock),
            more,
            clock,
            clock,
            RuleFile(self.path),
        )
        self.addCleanup(made.stop)
        return made

    def refused(self, participant: Participant, user: int = 5, name: bytes = b"t") -> bool:
        grant = Grant(user, "lab-1", ("vm",), 2e9, "id", token_key=TokenKey(name * 32, 2e9, _NOW - 1))
        return participant.known.is_revoked(grant, "vm")

    def test_restart(self) -> None:
        """Kicks, the rules for the tokens of their sessions, and lifts hold over a restart."""
        first = self.participant(lambda rules: [Rule.of_token(rules[0], (b"u" * 32).hex(), 2e9)])
        kick = first.kick([Match(user="5")], math.inf)
        self.assertEqual(kick, Kick(kick.id, math.inf))
        lifted = first.kick([Match(user="6")], math.inf)
        self.assertEqual(first.lift(lifted.id), Kick(lifted.id, math.inf))
        self.assertIsNone(first.lift("unknown"))
        first.stop()
        second = self.participant()
        self.assertTrue(self.refused(second))
        self.assertTrue(self.refused(second, 7, b"u"))
        self.assertFalse(self.refused(second, 6))
        self.assertTrue(second.lift(kick.id), "the store has them, too")
        second.stop()
        self.assertFalse(self.refused(self.participant()))

    def test_not_saved(self) -> None:
        """If the disk is full, the kick holds, and its answer says that it is not saved."""
        participant = self.participant()
        full = OSError(28, "No space left on device")
        with (
            mock.patch("wsproxy.state.stores.rule_file._replace", side_effect=full),
            self.assertLogs("wsproxy.state", "ERROR") as logs,
        ):
            kick = participant.kick([Match(user="5")], math.inf)
        self.assertEqual(kick.unsaved, "No space left on device")
        self.assertEqual(len(logs.records), 1)
        self.assertTrue(self.refused(participant))
        participant.stop()
        self.assertTrue(self.refused(self.participant()), "the end of the process saves it after all")


if __name__ == "__main__":
    unittest.main()
