"""The proxy as a script of one's own, in front of ``kubectl proxy``: SECRET_KEY=... python serve.py."""

import logging
import os

from wsproxy import WebsocketProxy

logging.basicConfig(level="INFO")
proxy = WebsocketProxy(
    remote_url=os.environ.get("WS_REMOTE_URL", "ws://localhost:8001"),
    api_path="/apis/subresources.kubevirt.io/v1/namespaces/{namespace}/virtualmachineinstances/{vmi_name}/vnc",
    local_dev_mode=True,  # no TLS and no service account: kubectl proxy has its own
    secret_key=os.environ["SECRET_KEY"],  # what the tokens are signed with
)
proxy.run(
    "127.0.0.1",
    int(os.environ.get("PORT", "5001")),
    on_ready=lambda running: print("listening on {}:{}".format(*running.address), flush=True),
)
