"""What a type checker has to find: each line with a comment is wrong, and no other."""

from wsproxy import Config, Nothing, WebsocketProxy  # attr-defined
from wsproxy.testing import Image, ProxyTestCase, RFBClient, Screen  # attr-defined


def mistaken(proxy: WebsocketProxy, image: Image, vm: RFBClient) -> None:
    proxy.start()  # attr-defined
    WebsocketProxy("ws://api", "/", "yes", "secret")  # arg-type
    WebsocketProxy("ws://api", "/", True, "secret", timeout=5)  # call-arg
    Config()  # call-arg
    vm.click("10", 20)  # arg-type
    image.find("red")  # arg-type


class Suite(ProxyTestCase):
    namespace = 5  # assignment
