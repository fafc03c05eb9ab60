"""Where the shared state is: the forms of the setting, and what people see of them."""

from __future__ import annotations

import unittest

from wsproxy.state.stores.places import CLUSTER, LOCAL, MEMORY, REDIS, SENTINEL, StatePlace

_PLACES: tuple[tuple[str, StatePlace, str], ...] = (
    ("memory", StatePlace(MEMORY), "memory"),
    ("local:/run/a b", StatePlace(LOCAL, path="/run/a b"), "local:/run/a b"),
    ("redis://h", StatePlace(REDIS, hosts=(("h", 6379),)), "redis://h:6379"),
    ("REDIS://h/0", StatePlace(REDIS, hosts=(("h", 6379),)), "redis://h:6379"),
    (
        "rediss://lab:p%40ss@[::1]:7000/3",
        StatePlace(REDIS, hosts=(("::1", 7000),), tls=True, user="lab", password="p@ss", db=3),
        "rediss://[::1]:7000/3",
    ),
    ("redis://lab@h", StatePlace(REDIS, hosts=(("h", 6379),), user="lab"), "redis://h:6379"),
    (
        "redis+unix://:p@/run/a@b?db=2",
        StatePlace(REDIS, path="/run/a@b", password="p", db=2),
        "redis+unix:///run/a@b?db=2",
    ),
    (
        "redis+sentinel://a,b:1/main/5",
        StatePlace(SENTINEL, hosts=(("a", 26379), ("b", 1)), service="main", db=5),
        "redis+sentinel://a:26379,b:1/main/5",
    ),
    (
        "rediss+cluster://a:1,b",
        StatePlace(CLUSTER, hosts=(("a", 1), ("b", 6379)), tls=True),
        "rediss+cluster://a:1,b:6379",
    ),
)


class PlacesTest(unittest.TestCase):
    def test_forms(self) -> None:
        """Each form has its parts, and is shown without user and password."""
        for text, place, shown in _PLACES:
            with self.subTest(text):
                self.assertEqual(StatePlace.parse(text), place)
                self.assertEqual(str(place), shown)

    def test_password_is_not_shown(self) -> None:
        place = StatePlace.parse("redis://lab:hunter2@h")
        self.assertNotIn("hunter2", f"{place} {place!r}")
