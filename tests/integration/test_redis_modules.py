"""The modules that need redis-py are documented as all others are."""

from __future__ import annotations

from tests.architecture import test_exports

__all__ = ["RedisExportsTest"]


class RedisExportsTest(test_exports.ExportsTest):
    def test_modules(self) -> None:
        """They are among those that the other tests look at."""
        names = [each.__name__ for each in test_exports.modules()]
        self.assertIn(f"{test_exports.OF_REDIS}store", names)
