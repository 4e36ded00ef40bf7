"""The servers of a run: etcd, kube-apiserver, a fake kubelet, and kaudit's gateway in front."""

import json
import pathlib
import signal
import socket
import ssl
import subprocess
import threading
import time
import urllib.error
import urllib.request

HOST = "127.0.0.1"
PATIENCE_S = 60

TOKENS = """\
admin-token,admin,admin-uid,"system:masters"
alice-token,alice,alice-uid,"developers"
mallory-token,mallory,mallory-uid,"nobody"
impersonator-token,robot,robot-uid,"impersonators"
gateway-token,gateway,gateway-uid,"gateways"
"""

# Users whom a certificate names, and their group.
CERTIFIED = {"carla": "developers", "robot": "impersonators", "mallory": "nobody"}

POLICY = """\
apiVersion: audit.k8s.io/v1
kind: Policy
rules:
  - level: None
    users: [system:apiserver]
  - level: None
    resources: [{group: "", resources: [endpoints, events]}]
    verbs: [watch]
  - level: Metadata
    resources:
      - {group: "", resources: [secrets, serviceaccounts/token]}
      - {group: authentication.k8s.io}
  - level: Request
    resources: [{group: batch}]
  - level: RequestResponse
    omitManagedFields: true
    resources: [{group: apps}]
  - level: Metadata
    omitStages: [RequestReceived]
    nonResourceURLs: ["/healthz*", "/readyz*", "/livez*"]
  - level: RequestResponse
"""


def free_port():
    with socket.socket() as listener:
        listener.bind((HOST, 0))
        return listener.getsockname()[1]


def insecure():
    """The certificates of a run are made for it; nobody needs to check them."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


class Servers:
    def __init__(self, binaries, kaudit, folder):
        self.binaries, self.kaudit, self.folder = pathlib.Path(binaries), kaudit, pathlib.Path(folder)
        self.processes = []
        self.direct, self.gateway = free_port(), free_port()

    def path(self, name):
        return str(self.folder / name)

    def start(self):
        self._keys()
        pathlib.Path(self.path("tokens.csv")).write_text(TOKENS)
        pathlib.Path(self.path("policy.yaml")).write_text(POLICY)
        self.kubelet = Kubelet(self.path("server.crt"), self.path("server.key"))
        self._etcd_and_api_server()
        self._gateway()

    def _keys(self):
        def openssl(*arguments):
            subprocess.run(["openssl", *arguments], check=True, capture_output=True, cwd=self.folder)

        for name, subject in [("client-ca", "/CN=client-ca"), ("proxy-ca", "/CN=proxy-ca"),
                              ("server-ca", "/CN=server-ca")]:
            openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", subject,
                    "-keyout", f"{name}.key", "-out", f"{name}.crt")
        openssl("req", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=127.0.0.1", "-keyout", "server.key",
                "-out", "server.csr")
        pathlib.Path(self.path("server.ext")).write_text("subjectAltName=IP:127.0.0.1\nbasicConstraints=CA:FALSE\n")
        openssl("x509", "-req", "-days", "2", "-in", "server.csr", "-CA", "server-ca.crt", "-CAkey", "server-ca.key",
                "-CAcreateserial", "-extfile", "server.ext", "-out", "server.crt")
        pathlib.Path(self.path("client.ext")).write_text("basicConstraints=CA:FALSE\nextendedKeyUsage=clientAuth\n")
        for user, group in CERTIFIED.items():
            openssl("req", "-newkey", "rsa:2048", "-nodes", "-subj", f"/O={group}/CN={user}", "-keyout", f"{user}.key",
                    "-out", f"{user}.csr")
            openssl("x509", "-req", "-days", "2", "-in", f"{user}.csr", "-CA", "client-ca.crt", "-CAkey",
                    "client-ca.key", "-CAcreateserial", "-extfile", "client.ext", "-out", f"{user}.crt")
        openssl("genrsa", "-out", "sa.key", "2048")
        openssl("rsa", "-in", "sa.key", "-pubout", "-out", "sa.pub")

    def _run(self, name, *arguments):
        log = open(self.path(f"{name}.log"), "wb")
        process = subprocess.Popen(arguments, stdout=log, stderr=log)
        self.processes.append(process)
        return process

    def _etcd_and_api_server(self):
        client, peer = free_port(), free_port()
        etcd = f"http://{HOST}:{client}"
        self._run("etcd", self.binaries / "etcd", "--data-dir", self.path("etcd"), "--unsafe-no-fsync",
                  "--listen-client-urls", etcd, "--advertise-client-urls", etcd,
                  "--listen-peer-urls", f"http://{HOST}:{peer}")
        self._run(
            "kube-apiserver", self.binaries / "kube-apiserver", f"--etcd-servers={etcd}",
            f"--bind-address={HOST}", f"--advertise-address={HOST}", f"--secure-port={self.direct}",
            f"--tls-cert-file={self.path('server.crt')}", f"--tls-private-key-file={self.path('server.key')}",
            f"--cert-dir={self.path('certs')}", f"--client-ca-file={self.path('client-ca.crt')}",
            f"--token-auth-file={self.path('tokens.csv')}", "--authorization-mode=Node,RBAC",
            "--anonymous-auth=true", f"--service-account-issuer=https://{HOST}:{self.direct}",
            f"--service-account-key-file={self.path('sa.pub')}",
            f"--service-account-signing-key-file={self.path('sa.key')}",
            f"--requestheader-client-ca-file={self.path('proxy-ca.crt')}",
            "--requestheader-allowed-names=front-proxy", "--requestheader-username-headers=X-Remote-User",
            "--requestheader-group-headers=X-Remote-Group",
            "--requestheader-extra-headers-prefix=X-Remote-Extra-",
            "--service-cluster-ip-range=10.0.0.0/24", "--allow-privileged=true",
            "--disable-admission-plugins=ServiceAccount", "--kubelet-preferred-address-types=InternalIP",
            f"--audit-policy-file={self.path('policy.yaml')}", f"--audit-log-path={self.path('upstream.log')}",
            "--audit-log-mode=blocking", "--audit-log-maxsize=1000",
        )
        self._until_ready(self.direct)

    def _gateway(self):
        kubeconfig = {
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{"name": "c", "cluster": {
                "server": f"https://{HOST}:{self.direct}",
                "certificate-authority": self.path("server-ca.crt")}}],
            "users": [{"name": "u", "user": {"token": "gateway-token"}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        }
        pathlib.Path(self.path("upstream.kubeconfig")).write_text(json.dumps(kubeconfig))
        self._run(
            "gateway", self.kaudit, "run", "--role", "gateway", "--listen", f"{HOST}:{self.gateway}",
            "--tls-cert-file", self.path("server.crt"), "--tls-private-key-file", self.path("server.key"),
            "--upstream-kubeconfig", self.path("upstream.kubeconfig"), "--client-ca-file", self.path("client-ca.crt"),
            "--audit-policy-file", self.path("policy.yaml"), "--audit-log-path", self.path("gateway-audit.log"),
            "--audit-log-mode=blocking", "--audit-log-maxsize=1000",
        )
        self._until_ready(self.gateway)

    def _until_ready(self, port):
        deadline = time.monotonic() + PATIENCE_S
        request = urllib.request.Request(
            f"https://{HOST}:{port}/readyz", headers={"Authorization": "Bearer admin-token"})
        while True:
            gone = [process.args[0] for process in self.processes if process.poll() is not None]
            if gone or time.monotonic() > deadline:
                raise RuntimeError(f"not ready; ended: {gone}; see the logs in {self.folder}")
            try:
                with urllib.request.urlopen(request, context=insecure(), timeout=5):
                    return
            except (urllib.error.URLError, OSError):
                time.sleep(0.3)

    def stop(self):
        for process in reversed(self.processes):
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()


class Kubelet:
    """Answers logs, agrees to every session and echoes it; the pod `refused` gets a 403."""

    def __init__(self, certificate, key):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        self.listener = context.wrap_socket(socket.create_server((HOST, 0)), server_side=True,
                                            do_handshake_on_connect=False)
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            connection, _ = self.listener.accept()
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection):
        try:
            connection.settimeout(30)
            connection.do_handshake()
            head = b""
            while b"\r\n\r\n" not in head:
                more = connection.recv(65536)
                if not more:
                    return
                head += more
            head, _, rest = head.partition(b"\r\n\r\n")
            target = head.split(b" ")[1]
            fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:] if b": " in line)
            if b"/refused/" in target:
                connection.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 3\r\nConnection: close\r\n\r\nno\n")
            elif target.startswith(b"/containerLogs/"):
                lines = b"".join(b"line %d\n" % number for number in range(200))
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n"
                                   b"Connection: close\r\n\r\n%s" % (len(lines), lines))
            elif b"upgrade" in fields:
                protocol = b""
                if b"x-stream-protocol-version" in fields:
                    chosen = fields[b"x-stream-protocol-version"].split(b",")[0].strip()
                    protocol = b"X-Stream-Protocol-Version: " + chosen + b"\r\n"
                connection.sendall(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: "
                                   + fields[b"upgrade"].upper() + b"\r\n" + protocol + b"\r\n" + rest)
                while data := connection.recv(65536):
                    connection.sendall(data)
            else:
                connection.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        except OSError:
            pass
        finally:
            connection.close()
