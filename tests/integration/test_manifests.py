"""The manifests in examples/kubernetes: they fit together, and Kubernetes and the program take them."""

from __future__ import annotations

import json
import subprocess
import tempfile
import urllib.request
from pathlib import Path
from typing import Any

from tests.integration.programs import needs
from tests.support.proxy_process import ProxyProcess
from wsproxy.config import config_from_env
from wsproxy.testing.case import ProxyTestCase
from wsproxy.testing.kubevirt.frames import BINARY
from wsproxy.testing.rfb.raw_client import RawClient

_FILE = Path(__file__).parent.parent.parent / "examples" / "kubernetes" / "wsproxy.yaml"
_SECONDS = 60.0


def kubectl(*arguments: str, manifest: str) -> list[dict[str, Any]]:
    """Have kubectl read a manifest, without a cluster, and return what it read."""
    command = ["kubectl", *arguments, "--local", "--filename=-", "--output=json"]
    done = subprocess.run(
        command, input=manifest, capture_output=True, text=True, timeout=_SECONDS, check=False
    )
    if done.returncode:
        raise AssertionError(done.stderr)
    text, documents = done.stdout.strip(), []
    while text:
        document, end = json.JSONDecoder().raw_decode(text)
        documents.append(document)
        text = text[end:].strip()
    return documents


def dropped(given: object, taken: object, at: str = "") -> list[str]:
    """Return where ``taken`` lacks something of ``given``, such as a field that Kubernetes does not know."""
    if isinstance(given, dict) and isinstance(taken, dict):
        return [place for name in given for place in dropped(given[name], taken.get(name), f"{at}.{name}")]
    if isinstance(given, list) and isinstance(taken, list) and len(given) == len(taken):
        pairs = enumerate(zip(given, taken, strict=True))
        return [place for index, (one, other) in pairs for place in dropped(one, other, f"{at}[{index}]")]
    return [] if given == taken else [at]


@needs("kubectl", "kubernetes-client")
class ManifestsTest(ProxyTestCase):
    def setUp(self) -> None:
        super().setUp()
        documents = kubectl("annotate", "example=1", manifest=_FILE.read_text(encoding="utf-8"))
        self.by_kind = {document["kind"]: document for document in documents}
        self.assertEqual(len(self.by_kind), len(documents), "one of each kind is what the tests look at")
        self.pod = self.by_kind["Deployment"]["spec"]["template"]
        [self.container] = self.pod["spec"]["containers"]

    def settings(self) -> dict[str, str]:
        return {variable["name"]: variable["value"] for variable in self.container["env"]}

    def test_fields_are_known(self) -> None:
        """kubectl, which forgets fields that Kubernetes does not know, forgets none of the Deployment's."""
        deployment = self.by_kind["Deployment"]
        [taken] = kubectl("set", "image", f"{self.container['name']}=other", manifest=json.dumps(deployment))
        self.assertEqual(dropped(deployment, taken), [".spec.template.spec.containers[0].image"])

    def test_least_permission(self) -> None:
        """The service account may open consoles in one namespace, and nothing else."""
        account, role, binding = (self.by_kind[kind] for kind in ("ServiceAccount", "Role", "RoleBinding"))
        rule = {
            "apiGroups": ["subresources.kubevirt.io"],
            "resources": ["virtualmachineinstances/vnc"],
            "verbs": ["get"],
        }
        self.assertEqual(role["rules"], [rule])
        self.assertEqual(binding["metadata"]["namespace"], role["metadata"]["namespace"])
        self.assertEqual(binding["roleRef"]["name"], role["metadata"]["name"])
        self.assertEqual(
            binding["subjects"],
            [{"kind": "ServiceAccount"} | {key: account["metadata"][key] for key in ("name", "namespace")}],
        )
        self.assertEqual(self.settings()["WSPROXY_NAMESPACES"], role["metadata"]["namespace"])
        self.assertEqual(self.pod["spec"]["serviceAccountName"], account["metadata"]["name"])

    def test_traffic_finds_its_way(self) -> None:
        """Ingress, Service, pod, and the program's own port and prefix name each other."""
        service, ingress = self.by_kind["Service"], self.by_kind["Ingress"]
        [path] = ingress["spec"]["rules"][0]["http"]["paths"]
        [service_port] = service["spec"]["ports"]
        [port] = self.container["ports"]
        self.assertEqual(path["backend"]["service"]["name"], service["metadata"]["name"])
        self.assertEqual(path["backend"]["service"]["port"]["name"], service_port["name"])
        self.assertEqual(service_port["targetPort"], port["name"])
        labels = self.pod["metadata"]["labels"]
        self.assertEqual(service["spec"]["selector"], labels)
        self.assertEqual(self.by_kind["Deployment"]["spec"]["selector"]["matchLabels"], labels)
        self.assertEqual(path["path"].strip("/"), self.settings()["HOST_PATH_PREFIX"])
        injected = {"KUBERNETES_SERVICE_HOST": "10.96.0.1", "KUBERNETES_SERVICE_PORT": "443"}
        self.assertEqual(config_from_env(self.settings() | injected).port, port["containerPort"])

    def test_program(self) -> None:
        """The container's command, with its settings, answers the probes and opens a console."""
        self.api.add_vmi("ubuntu", self.namespace)
        python, *rest = self.container["command"] + self.container["args"]
        self.assertEqual(python, "python")
        [mount, _] = self.container["volumeMounts"]
        secret = "the-mounted-secret-of-32-bytes-and-more"
        with tempfile.TemporaryDirectory() as directory:
            (Path(directory) / "secret").write_text(secret, encoding="ascii")
            settings = self.settings()
            settings["SECRET_KEY_FILE"] = settings["SECRET_KEY_FILE"].replace(mount["mountPath"], directory)
            with ProxyProcess(self.api, rest, **settings) as program:
                for probe in ("livenessProbe", "readinessProbe"):
                    url = program.url.replace("ws", "http") + self.container[probe]["httpGet"]["path"]
                    with urllib.request.urlopen(url, timeout=_SECONDS) as answer:
                        self.assertEqual(answer.status, 200)
                token = self.token("ubuntu", secret=secret)
                with RawClient.open(f"{program.url}/{settings['HOST_PATH_PREFIX']}/{token}/ubuntu") as client:
                    client.send_frame(BINARY, b"hello")
                    self.assertEqual(client.recv_frame(_SECONDS).payload, b"hello")
                self.assertEqual(program.stop(), 0)
