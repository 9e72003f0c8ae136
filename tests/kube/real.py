"""A real kube-apiserver with its etcd, on loopback: certificates, accounts, and who may ask what.

`make kube` builds both; STANCH_TEST_KUBE_APISERVER is the directory that they lie in. No kubelet
and no controller runs, so tests write what those would: a pod's status, a budget's count.
"""

import base64
import http.client
import json
import os
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from stanch.demo.host.ports import free_addresses
from stanch.kube import Cluster

VARIABLE = "STANCH_TEST_KUBE_APISERVER"
PATIENCE_S = 180.0
ADMIN = "tests-admin-token"
Object = dict[str, Any]
_AUDIT = """
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules: [{level: Metadata}]
"""


class RefusedError(Exception):
    """The API server refused a request of the tests' own."""

    def __init__(self, status: int, said: Object) -> None:
        super().__init__(f"{status}: {said.get('message')}")
        self.status = status


@dataclass
class RealServer:
    """A running API server."""

    directory: Path
    programs: Path
    address: str
    etcd: str
    _process: subprocess.Popen[bytes] | None = None

    @property
    def ca(self) -> Path:
        """What its certificate is verified by."""
        return self.directory / "ca.pem"

    @property
    def log(self) -> Path:
        """What it says."""
        return self.directory / "apiserver.log"

    def cluster(self, namespace: str = "shop", **about: str) -> Cluster:
        """As Stanch sees it."""
        return Cluster(f"https://{self.address}", namespace, ca_file=str(self.ca), **about)

    def ask(
        self,
        method: str,
        path: str,
        body: Object | None = None,
        *,
        token: str = ADMIN,
        **query: str,
    ) -> Object:
        """One request, as the administrator by default. Raises RefusedError."""
        kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
        headers = {"Authorization": f"Bearer {token}", "Content-Type": kind}
        host, _, port = self.address.rpartition(":")
        trust = ssl.create_default_context(cafile=str(self.ca))
        connection = http.client.HTTPSConnection(host, int(port), timeout=60, context=trust)
        try:
            target = f"{path}?{urlencode(query)}" if query else path
            connection.request(method, target, json.dumps(body) if body else None, headers)
            answer = connection.getresponse()
            raw = answer.read()
        finally:
            connection.close()
        said = json.loads(raw) if raw.startswith(b"{") else {"message": raw.decode()}
        if answer.status >= 300:
            raise RefusedError(answer.status, said)
        return dict(said)

    def create(self, value: Object, **query: str) -> Object:
        """Create an object; one that is there already stays as it is."""
        try:
            return self.ask("POST", path_of(value), value, **query)
        except RefusedError as refused:
            if refused.status != 409:
                raise
            return self.ask("GET", f"{path_of(value)}/{value['metadata']['name']}")

    def namespace(self, name: str, **labels: str) -> None:
        """Make a namespace in which pods can be created."""
        about = {"name": name, "labels": labels}
        self.create({"apiVersion": "v1", "kind": "Namespace", "metadata": about})
        account = {"name": "default", "namespace": name}
        self.create({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": account})

    def pod(self, value: Object) -> Object:
        """Create a pod, and say of it what its kubelet would."""
        status, value = value["status"], {key: value[key] for key in ("metadata", "spec")}
        about = {key: each for key, each in value["metadata"].items() if key != "creationTimestamp"}
        owners = [
            {"apiVersion": "apps/v1", "uid": "00000000-0000-0000-0000-000000000001", **owner}
            for owner in about.get("ownerReferences", ())
        ]
        made = {"apiVersion": "v1", "kind": "Pod", **value}
        created = self.create({**made, "metadata": {**about, "ownerReferences": owners}})
        return self.report(created["metadata"]["namespace"], created["metadata"]["name"], status)

    def report(self, namespace: str, name: str, status: Object) -> Object:
        """Write a pod's status, as its kubelet would."""
        statuses = [
            {"image": "shop:1", "imageID": "", "ready": True, **each}
            for each in status.get("containerStatuses", ())
        ]
        status = {**status, **({"containerStatuses": statuses} if statuses else {})}
        path = f"/api/v1/namespaces/{namespace}/pods/{name}/status"
        return self.ask("PATCH", path, {"status": status})

    def remove(self, namespace: str, name: str) -> None:
        """Let a pod be gone at once, as when its kubelet has ended it."""
        path = f"/api/v1/namespaces/{namespace}/pods/{name}"
        self.ask("DELETE", path, gracePeriodSeconds="0")

    def token(self, namespace: str, account: str, secret: str | None = None) -> str:
        """A token of a service account; with a secret, one that is invalid when that is gone."""
        spec: Object = {"expirationSeconds": 3600, "audiences": []}
        if secret is not None:
            about = {"name": secret, "namespace": namespace}
            made = self.create({"apiVersion": "v1", "kind": "Secret", "metadata": about})
            uid = made["metadata"]["uid"]
            spec["boundObjectRef"] = {
                "apiVersion": "v1",
                "kind": "Secret",
                "name": secret,
                "uid": uid,
            }
        asked = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token"
        return str(self.ask("POST", path, asked)["status"]["token"])

    def allowed(self, user: str) -> set[tuple[str, str, str]]:
        """What a user asked for and was allowed: verb, group and resource, by the audit log."""
        found = set()
        for line in (self.directory / "audit.log").read_text().splitlines():
            event = json.loads(line)
            ref = event.get("objectRef")
            decision = event.get("annotations", {}).get("authorization.k8s.io/decision")
            if event["user"].get("username") == user and ref and decision == "allow":
                resource = "/".join(filter(None, (ref["resource"], ref.get("subresource"))))
                found.add((event["verb"], ref.get("apiGroup", ""), resource))
        return found

    def start(self) -> None:
        """Start it, and wait until it is ready."""
        host, _, port = self.address.rpartition(":")
        where = self.directory
        options = {
            "etcd-servers": f"http://{self.etcd}",
            "bind-address": host,
            "advertise-address": host,
            "secure-port": port,
            "endpoint-reconciler-type": "none",
            "cert-dir": where,
            "tls-cert-file": where / "server.pem",
            "tls-private-key-file": where / "server.key",
            "client-ca-file": where / "ca.pem",
            "service-cluster-ip-range": "10.96.0.0/24",
            "service-account-issuer": "https://kubernetes.default.svc",
            "service-account-key-file": where / "accounts.pem",
            "service-account-signing-key-file": where / "accounts.key",
            "authorization-mode": "RBAC",
            "token-auth-file": where / "tokens.csv",
            "audit-policy-file": where / "audit.yaml",
            "audit-log-path": where / "audit.log",
        }
        command = [f"--{key}={value}" for key, value in options.items()]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [self.programs / "apiserver", *command], stdout=log, stderr=log, cwd=where
            )
        deadline = time.monotonic() + PATIENCE_S
        while not self._is_ready():
            assert self._process.poll() is None, self.log.read_text()[-2000:]
            assert time.monotonic() < deadline, self.log.read_text()[-2000:]
            time.sleep(0.2)

    def stop(self) -> None:
        """Kill it; what it knew is in its etcd."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(30)
            self._process = None

    def _is_ready(self) -> bool:
        try:
            self.ask("GET", "/readyz")
        except (OSError, RefusedError, http.client.HTTPException):
            return False
        return True


def path_of(value: Object) -> str:
    """Where objects of this kind are created."""
    version, kind = value["apiVersion"], value["kind"].lower()
    prefix = f"/apis/{version}" if "/" in version else f"/api/{version}"
    plural = f"{kind[:-1]}ies" if kind.endswith("y") else f"{kind}s"
    namespace = value["metadata"].get("namespace")
    return f"{prefix}/namespaces/{namespace}/{plural}" if namespace else f"{prefix}/{plural}"


def programs() -> Path | None:
    """Where apiserver and etcd are; None when the variable does not say."""
    text = os.environ.get(VARIABLE, "")
    return Path(text).absolute() if text else None


@contextmanager
def real_server(directory: Path, where: Path) -> Iterator[RealServer]:
    """Run both until the end of the block. Their address stays when the server is restarted."""
    peer, client, address = free_addresses(3)
    _make_certificates(directory)
    (directory / "tokens.csv").write_text(f"{ADMIN},admin,admin,system:masters\n")
    (directory / "audit.yaml").write_text(_AUDIT)
    etcd = [where / "etcd", "--data-dir", directory / "etcd", "--name", "one", "--unsafe-no-fsync"]
    for flag, url in (("client", client), ("peer", peer)):
        etcd += [f"--listen-{flag}-urls", f"http://{url}"]
    etcd += ["--advertise-client-urls", f"http://{client}", "--log-level", "error"]
    etcd += ["--initial-advertise-peer-urls", f"http://{peer}"]
    etcd += ["--initial-cluster", f"one=http://{peer}"]
    with ExitStack() as ending, (directory / "etcd.log").open("wb") as log:
        process = subprocess.Popen(etcd, stdout=log, stderr=log, cwd=directory)
        ending.callback(process.wait, 30)
        ending.callback(process.kill)
        server = RealServer(directory, where, address, client)
        ending.callback(server.stop)
        server.start()
        yield server


def client_certificate(server: RealServer, name: str, group: str) -> dict[str, str]:
    """A client certificate that the server knows somebody by, as a kubeconfig has it."""
    files = _signed(server.directory, f"client-{name}", f"/O={group}/CN={name}", "clientAuth", "")
    certificate, key = (base64.b64encode(path.read_bytes()).decode() for path in files)
    return {"client-certificate-data": certificate, "client-key-data": key}


def _make_certificates(directory: Path) -> None:
    new = ["openssl", "req", "-x509", *_NEW_KEY, "-subj", "/CN=tests"]
    new += ["-addext", "keyUsage=critical,keyCertSign,cRLSign"]
    _run([*new, "-out", str(directory / "ca.pem"), "-keyout", str(directory / "ca.key")])
    _signed(directory, "server", "/CN=apiserver", "serverAuth", "IP:127.0.0.1")
    accounts = directory / "accounts.key"
    _run(["openssl", "genrsa", "-out", str(accounts), "2048"])
    _run(
        ["openssl", "rsa", "-in", str(accounts), "-pubout", "-out", str(directory / "accounts.pem")]
    )


_NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2")


def _signed(directory: Path, name: str, subject: str, usage: str, names: str) -> tuple[Path, Path]:
    certificate, key = directory / f"{name}.pem", directory / f"{name}.key"
    command = ["openssl", "req", "-x509", *_NEW_KEY, "-subj", subject]
    command += ["-CA", str(directory / "ca.pem"), "-CAkey", str(directory / "ca.key")]
    command += ["-addext", "basicConstraints=critical,CA:FALSE"]
    command += ["-addext", f"extendedKeyUsage={usage}"]
    if names:
        command += ["-addext", f"subjectAltName={names}"]
    _run([*command, "-out", str(certificate), "-keyout", str(key)])
    return certificate, key


def _run(command: list[str]) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=60)
