"""The platform's own tests, with unittest and with pytest."""

from __future__ import annotations

from typing import Any

import pytest

from wsproxy import WebsocketProxy
from wsproxy.testing import (
    Behaviour,
    ConsoleRefused,
    Desktop,
    FakeKubeVirtAPI,
    FakeVMI,
    Image,
    ProxyTestCase,
    RFBClient,
    assert_same_picture,
)
from wsproxy.testing.pytest_plugin import AddDesktop, ConsoleToken, OpenConsole


class ConsoleTest(ProxyTestCase):
    tls = False
    check_leaks = True
    proxy_settings = {"host_path_prefix": "labs"}  # noqa: RUF012 - as most will write it

    def make_api(self) -> FakeKubeVirtAPI:
        return FakeKubeVirtAPI(tls=self.tls, names=("kubernetes",))

    def test_typing(self) -> None:
        desktop: Desktop = self.add_desktop("ubuntu", facts={"lab": "1"})
        vm: RFBClient = self.open_console("ubuntu", token=self.token("ubuntu", user=5))
        vm.type("hello")
        self.assertTrue(desktop.wait_for_text("hello", 30))
        seen: Image = vm.wait_until(lambda image: image.count((166, 226, 160), tolerance=8) > 0)
        part: Image = seen.crop(*desktop.terminal_area)
        assert_same_picture(part, part)
        position: tuple[int, int] | None = seen.find_image(part)
        self.assertIsNotNone(position)
        desktop.assert_text("hello", timeout=30)
        found: tuple[int, int] = vm.assert_shows(part)
        vm.assert_same_picture(part, area=(*found, part.width, part.height), allowed=10000)

    def test_refused(self) -> None:
        vmi: FakeVMI = self.api.add_vmi("ubuntu", self.namespace, behaviour=Behaviour.busy())
        with self.assertRaises(ConsoleRefused) as refused:
            self.open_console(vmi.name)
        slug: str = refused.exception.slug
        self.assertEqual(slug, "console-busy")


@pytest.fixture
def console_proxy_settings() -> dict[str, Any]:
    return {"host_path_prefix": "labs"}


def test_fixtures(
    fake_kubevirt_api: FakeKubeVirtAPI,
    console_proxy: WebsocketProxy,
    add_desktop: AddDesktop,
    console_token: ConsoleToken,
    open_console: OpenConsole,
) -> None:
    desktop: Desktop = add_desktop("ubuntu")
    with open_console("ubuntu", console_token("ubuntu", user="ada"), timeout=30.0) as vm:
        name: str = vm.name
        assert name == desktop.name
    assert console_proxy.host_path_prefix == "labs"
    assert [request.status for request in fake_kubevirt_api.requests] == [101]
