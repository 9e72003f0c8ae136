"""Where the API server is, and as whom it is asked: from within a pod, or from a kubeconfig.

Of a kubeconfig, servers with their CA, tokens, token files and client certificates are understood.
Plug-ins (`exec`) are not run, and an unverified connection is refused.
"""

import base64
import os
import ssl
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from stanch.kube.errors import ClusterError, KubeError

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_MAX_FILE_BYTES = 4 * 1024 * 1024
_MAX_TOKEN_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Cluster:
    """An API server. server: its URL without a slash at the end. namespace: the one to assume.

    ca_file, ca_data: what its certificate is verified by, the system's when both are empty.
    token_file: read for each request, as it is rotated; token: where there is no file.
    certificate_file, key_file: the client's, PEM.
    """

    server: str
    namespace: str = "default"
    ca_file: str = ""
    ca_data: str = ""
    token_file: str = ""
    token: str = ""
    certificate_file: str = ""
    key_file: str = ""
    certificate_data: bytes = b""
    key_data: bytes = b""

    def headers(self) -> dict[str, str]:
        """Who asks. Raises KubeError when the token's file cannot be read."""
        token = self.token
        if self.token_file:
            try:
                with Path(self.token_file).open("rb") as file:
                    token = file.read(_MAX_TOKEN_BYTES).decode("ascii").strip()
            except (OSError, UnicodeDecodeError) as error:
                raise KubeError(f"cannot read the token {self.token_file}: {error}") from error
        return {"Authorization": f"Bearer {token}"} if token else {}

    def verification(self) -> ssl.SSLContext | bool:
        """By what the connection is verified. Raises ClusterError."""
        if not self.server.startswith("https:"):
            return False
        try:
            context = ssl.create_default_context(
                cafile=self.ca_file or None, cadata=self.ca_data or None
            )
            if self.certificate_file:
                context.load_cert_chain(self.certificate_file, self.key_file or None)
            elif self.certificate_data:
                _load_chain(context, self.certificate_data + b"\n" + self.key_data)
        except (OSError, ValueError) as error:
            raise ClusterError(f"the certificates for {self.server} cannot be used: {error}") from (
                error
            )
        return context


def find_cluster(
    kubeconfig: Path | None = None,
    environment: Mapping[str, str] | None = None,
    account: Path = ACCOUNT,
) -> Cluster:
    """Return the cluster of a kubeconfig, or else the one that this process runs in, or else that
    of $KUBECONFIG or ~/.kube/config. Raises ClusterError."""
    variables = os.environ if environment is None else environment
    if kubeconfig is not None:
        return read_kubeconfig(kubeconfig)
    if variables.get("KUBERNETES_SERVICE_HOST") and (account / "token").exists():
        return in_cluster(variables, account)
    first = variables.get("KUBECONFIG", "").partition(os.pathsep)[0]
    path = Path(first) if first else Path.home() / ".kube/config"
    if not path.exists():
        raise ClusterError(f"this is no pod, and there is no {path}; name one with --kubeconfig")
    return read_kubeconfig(path)


def in_cluster(environment: Mapping[str, str], account: Path = ACCOUNT) -> Cluster:
    """Return the cluster that this pod is in, by its service account."""
    host = environment["KUBERNETES_SERVICE_HOST"]
    port = environment.get("KUBERNETES_SERVICE_PORT", "443")
    namespace = account / "namespace"
    return Cluster(
        server=f"https://{f'[{host}]' if ':' in host else host}:{port}",
        namespace=namespace.read_text().strip() if namespace.exists() else "default",
        ca_file=str(account / "ca.crt"),
        token_file=str(account / "token"),
    )


def read_kubeconfig(path: Path) -> Cluster:
    """Read the current context of a kubeconfig. Raises ClusterError."""
    try:
        import yaml
    except ModuleNotFoundError as error:
        raise ClusterError(
            "a kubeconfig needs the package PyYAML; pip install 'stanch[kube]'"
        ) from error
    try:
        with path.open("rb") as file:
            values = yaml.safe_load(file.read(_MAX_FILE_BYTES))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ClusterError(f"cannot read the kubeconfig {path}: {error}") from error
    try:
        return _cluster(values, path.parent)
    except (KeyError, TypeError, ValueError) as error:
        raise ClusterError(f"{path}: {_complaint(error)}") from error


def _cluster(values: Any, directory: Path) -> Cluster:
    context = _named(values, "contexts", values["current-context"], "context")
    cluster = _named(values, "clusters", context["cluster"], "cluster")
    user = _named(values, "users", context["user"], "user") if context.get("user") else {}
    server = str(cluster["server"]).rstrip("/")
    if urlsplit(server).scheme not in ("http", "https"):
        raise ValueError(f"server is {server!r}; expected https://HOST:PORT")
    if cluster.get("insecure-skip-tls-verify"):
        raise ValueError("insecure-skip-tls-verify is refused; give the certificate-authority")
    if "exec" in user or "auth-provider" in user:
        raise ValueError(
            "its user needs a plug-in, which is not run; use a token (`kubectl create token`), or"
            " the server of `kubectl proxy`"
        )
    token = str(user.get("token", ""))
    if token and server.startswith("http:") and not _is_loopback(server):
        raise ValueError("a token is not sent unencrypted to another machine")
    return Cluster(
        server=server,
        namespace=context.get("namespace") or "default",
        ca_file=_file(cluster.get("certificate-authority"), directory),
        ca_data=_data(cluster.get("certificate-authority-data")).decode("ascii"),
        token_file=_file(user.get("tokenFile"), directory),
        token=token,
        certificate_file=_file(user.get("client-certificate"), directory),
        key_file=_file(user.get("client-key"), directory),
        certificate_data=_data(user.get("client-certificate-data")),
        key_data=_data(user.get("client-key-data")),
    )


def _named(values: Any, kind: str, name: str, part: str) -> Any:
    for each in values.get(kind) or ():
        if each.get("name") == name:
            return each.get(part) or {}
    raise ValueError(f"there is no {name!r} among its {kind}")


def _file(name: str | None, directory: Path) -> str:
    return str(directory / name) if name else ""


def _data(text: str | None) -> bytes:
    return base64.b64decode(text, validate=True) if text else b""


def _is_loopback(server: str) -> bool:
    return (urlsplit(server).hostname or "") in ("localhost", "127.0.0.1", "::1")


def _complaint(error: Exception) -> str:
    return f"{error} is missing" if isinstance(error, KeyError) else str(error)


def _load_chain(context: ssl.SSLContext, chain: bytes) -> None:
    """OpenSSL takes a client's key from a file only, so it is one for this moment, mode 0600."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(chain)
        file.flush()
        context.load_cert_chain(file.name)
