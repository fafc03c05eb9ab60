"""The signatures of the constructors, and their keywords."""

from __future__ import annotations

import inspect
import typing
import unittest
from dataclasses import fields
from typing import Any

from tests.test_config import SECRET, config
from wsproxy import Config, ConfigError, WebsocketProxy
from wsproxy.settings import typed
from wsproxy.settings.setting import REQUIRED
from wsproxy.settings.table import FIELDS, OPTIONS, POSITIONAL
from wsproxy.upstream.location import DEFAULT_API_PATH

_DEV = ("ws://127.0.0.1:9", DEFAULT_API_PATH, True, SECRET)


class SignatureTest(unittest.TestCase):
    def test_config(self) -> None:
        """Config shows a parameter for each setting, with its default."""
        parameters = inspect.signature(Config).parameters
        self.assertEqual(set(parameters), set(FIELDS))
        for name, parameter in parameters.items():
            default = inspect.Parameter.empty if FIELDS[name].default is REQUIRED else FIELDS[name].default
            self.assertEqual((parameter.kind, parameter.default), (parameter.KEYWORD_ONLY, default))

    def test_proxy(self) -> None:
        """WebsocketProxy shows the original's five parameters, its hooks, and the settings of a library."""
        names = set(inspect.signature(WebsocketProxy).parameters)
        self.assertEqual(names, {*POSITIONAL, "authorize", "on_open", "on_close", *OPTIONS})
        self.assertFalse(names & {"host", "port", "listen", "workers", "log_level"})

    def test_types(self) -> None:
        """The types for editors name the same settings, and can be looked at while a program runs."""
        self.assertEqual(set(typing.get_type_hints(typed.Options)), set(OPTIONS))
        others = set(FIELDS) - {"remote_url", "secret_key"}
        self.assertEqual(set(typing.get_type_hints(typed.ConfigOptions)), others)
        self.assertEqual([item.name for item in fields(Config)], list(FIELDS))

    def test_subclass(self) -> None:
        """A subclass with a constructor of its own shows that."""

        class Mine(WebsocketProxy):
            def __init__(self, url: str) -> None:
                super().__init__(url, *_DEV[1:])

        self.assertEqual(list(inspect.signature(Mine).parameters), ["url"])


class KeywordsTest(unittest.TestCase):
    def test_unknown(self) -> None:
        """An unknown keyword is a TypeError that suggests a similar one."""
        wrong: tuple[tuple[str, str], ...] = (
            ("max_sesions", "; did you mean max_sessions?"),
            ("zzz", ""),
        )
        for name, question in wrong:
            options: dict[str, Any] = {name: 5}
            with self.subTest(name):
                with self.assertRaises(TypeError) as caught:
                    config(**options)
                fault = f"got an unexpected keyword argument {name!r}{question}"
                self.assertEqual(str(caught.exception), f"Config() {fault}")
                with self.assertRaises(TypeError) as caught:
                    WebsocketProxy(*_DEV, **options)
                self.assertEqual(str(caught.exception), f"WebsocketProxy() {fault}")

    def test_type_checkers(self) -> None:
        """mypy sees a wrong type, and a wrong name; it would complain of a comment that it does not need."""
        with self.assertRaises(ConfigError):
            WebsocketProxy(*_DEV, max_sessions="5")  # type: ignore[arg-type]
        with self.assertRaises(TypeError):
            WebsocketProxy(*_DEV, max_sesions=5)  # type: ignore[call-arg]
        with self.assertRaises(ConfigError):
            Config(remote_url="wss://a", secret_key=SECRET, port="5001")  # type: ignore[arg-type]
        limit: int = WebsocketProxy(*_DEV, max_sessions=5, namespaces=iter(["lab"])).config.max_sessions
        self.assertEqual(limit, 5)

    def test_of_the_program(self) -> None:
        """The method that starts a proxy, and not its constructor, takes the address."""
        options: dict[str, Any] = {"port": 5001}
        with self.assertRaisesRegex(TypeError, "unexpected keyword argument 'port'"):
            WebsocketProxy(*_DEV, **options)

    def test_missing(self) -> None:
        """Without a URL there is no proxy."""
        options: dict[str, Any] = {"secret_key": SECRET}
        with self.assertRaisesRegex(TypeError, "remote_url"):
            Config(**options)
