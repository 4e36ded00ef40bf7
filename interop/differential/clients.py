"""The clients of a run: HTTP/1.1 and HTTP/2 requests, kubectl, sessions that are upgraded."""

import base64
import http.client
import os
import re
import socket
import subprocess

from servers import HOST, insecure

TIMEOUT_S = 30

# What two answers to one question may differ in: header fields of the connection, of the moment, of the request.
VARYING = {"date", "audit-id", "connection", "transfer-encoding", "content-length", "keep-alive"}


class Answer:
    def __init__(self, code, headers, body):
        self.code, self.headers, self.body = code, headers, body


class Clients:
    def __init__(self, direct, gateway, folder):
        self.direct, self.gateway, self.folder = direct, gateway, folder
        self.names = {}
        self.answers = []
        # Audit IDs of what went through the gateway.
        self.through = set()
        self.count = 0

    def _head(self, port, name, token, headers, audit_id):
        self.count += 1
        fields = {"User-Agent": "differential/1", "Accept": "application/json"}
        if token:
            fields["Authorization"] = f"Bearer {token}"
        fields.update(headers or {})
        audit_id = audit_id or f"{self.count:04}-{re.sub('[^a-z0-9]+', '-', name.lower()).strip('-')}"
        self.names[audit_id] = name
        if port == self.gateway:
            self.through.add(audit_id)
        fields["Audit-ID"] = audit_id
        return {key: value for key, value in fields.items() if value is not None}

    def once(self, port, name, method, path, token, headers, body, audit_id=None, user=None):
        fields = self._head(port, name, token, headers, audit_id)
        context = insecure()
        if user:
            context.load_cert_chain(f"{self.folder}/{user}.crt", f"{self.folder}/{user}.key")
        if isinstance(body, str):
            body = body.encode()
        connection = http.client.HTTPSConnection(HOST, port, context=context, timeout=TIMEOUT_S)
        connection.putrequest(method, path, skip_accept_encoding=True)
        if body is not None:
            fields["Content-Length"] = str(len(body))
        for key, value in fields.items():
            connection.putheader(key, value)
        connection.endheaders(body)
        response = connection.getresponse()
        answer = Answer(response.status, [(k.lower(), v) for k, v in response.getheaders()], response.read())
        connection.close()
        return answer

    def read(self, name, path, token="admin-token", headers=None, method="GET", body=None, user=None):
        """Asks both; the answers have to be the same. A user shows a certificate in place of a token."""
        token = None if user else token
        direct = self.once(self.direct, name, method, path, token, headers, body, user=user)
        through = self.once(self.gateway, name, method, path, token, headers, body, user=user)
        self.answers.append((name, direct, through))
        return through

    def write(self, name, method, path, body=None, token="admin-token", headers=None, audit_id=None, user=None):
        """Asks through the gateway only."""
        token = None if user else token
        given = {"Content-Type": "application/json"} if body is not None else {}
        return self.once(self.gateway, name, method, path, token, {**given, **(headers or {})}, body, audit_id, user)

    def http2(self, name, path, token="admin-token"):
        def ask(port):
            fields = self._head(port, name, token, {"User-Agent": "differential-h2/1"}, None)
            arguments = [part for key, value in fields.items() for part in ("-H", f"{key}: {value}")]
            done = subprocess.run(["curl", "-sk", "--http2", *arguments, f"https://{HOST}:{port}{path}"],
                                  capture_output=True, timeout=TIMEOUT_S, check=True)
            return Answer(200, [], done.stdout)

        self.answers.append((name, ask(self.direct), ask(self.gateway)))

    def kubectl(self, *arguments, token="admin-token", stdin=None, timeout=TIMEOUT_S):
        environment = {**os.environ, "HOME": self.folder, "KUBECONFIG": "/dev/null"}
        return subprocess.run(
            ["kubectl", f"--server=https://{HOST}:{self.gateway}", "--insecure-skip-tls-verify", f"--token={token}",
             *arguments], input=stdin, capture_output=True, text=True, timeout=timeout, env=environment, check=False)

    def watch(self, name, path, token="admin-token"):
        """Reads the first bytes of a stream and hangs up."""
        fields = self._head(self.gateway, name, token, None, None)
        connection = http.client.HTTPSConnection(HOST, self.gateway, context=insecure(), timeout=TIMEOUT_S)
        connection.request("GET", path, headers=fields)
        response = connection.getresponse()
        first = response.read1(4096)
        connection.sock.shutdown(socket.SHUT_RDWR)
        connection.close()
        return first

    def session(self, name, method, path, protocol, token="admin-token", subprotocol="v4.channel.k8s.io"):
        """Asks for a tunnel, says a word, and hangs up."""
        fields = self._head(self.gateway, name, token, {"Connection": "Upgrade", "Upgrade": protocol, "Accept": "*/*"}, None)
        if protocol == "websocket":
            fields["Sec-WebSocket-Version"] = "13"
            fields["Sec-WebSocket-Key"] = base64.b64encode(b"0123456789abcdef").decode()
            fields["Sec-WebSocket-Protocol"] = subprotocol
        else:
            fields["X-Stream-Protocol-Version"] = subprotocol
        head = f"{method} {path} HTTP/1.1\r\nHost: {HOST}\r\n"
        head += "".join(f"{key}: {value}\r\n" for key, value in fields.items())
        with insecure().wrap_socket(socket.create_connection((HOST, self.gateway), TIMEOUT_S)) as tunnel:
            tunnel.settimeout(3)
            tunnel.sendall(head.encode() + b"\r\n")
            try:
                answer = tunnel.recv(65536)
                if b" 101 " in answer.split(b"\r\n")[0] and protocol != "websocket":
                    tunnel.sendall(b"hello")
                    answer += tunnel.recv(65536)
            except (TimeoutError, OSError):
                answer = b""
        return answer
