"""The gateway beside nginx and haproxy before the same server: processor time, delay, memory.

Everything shares the machine, so requests per second mean little; what counts is the processor time (user and system)
that a proxy takes for a request, taken in turns, medians of the rounds. nginx and haproxy write an access log, the gateway
two events per request at Metadata. All verify the server's certificate and speak TLS on both sides.

Usage: gateway.py KAUDIT UPSTREAM PACE ROUNDS [PART...]; parts are h1, none, delay, h2, list, watch, tunnel
"""

import json
import os
import pathlib
import re
import signal
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import time

SMALL = "/api/v1/namespaces/default/configmaps/small"
MEDIUM = "/api/v1/namespaces/default/configmaps/medium"
LIST = "/api/v1/configmaps"
WATCH = "/api/v1/namespaces/default/configmaps?watch=1"
EXEC = "/api/v1/namespaces/default/pods/x/exec?bytes="
TOKEN = "Authorization: Bearer bench"
TICK = os.sysconf("SC_CLK_TCK")
WATCHES = 5000
TUNNEL_BYTES = 1 << 30

METADATA = "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules:\n- level: Metadata\n"
NONE = METADATA.replace("Metadata", "None")

NGINX = """
daemon off;
worker_processes 2;
worker_rlimit_nofile 20000;
pid {folder}/nginx.pid;
error_log {folder}/nginx.err;
events {{ worker_connections 10000; }}
http {{
  access_log {folder}/nginx.log combined buffer=64k;
  client_body_temp_path {folder}/nginx-body;
  proxy_temp_path {folder}/nginx-proxy;
  fastcgi_temp_path {folder}/nginx-fastcgi;
  uwsgi_temp_path {folder}/nginx-uwsgi;
  scgi_temp_path {folder}/nginx-scgi;
  keepalive_requests 1000000000;
  upstream cluster {{ server {upstream}; keepalive 256; keepalive_requests 1000000000; }}
  server {{
    listen 127.0.0.1:{port} ssl http2;
    ssl_certificate {folder}/tls.crt;
    ssl_certificate_key {folder}/tls.key;
    location / {{
      proxy_pass https://cluster;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_set_header Host $host;
      proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
      proxy_ssl_trusted_certificate {folder}/ca.crt;
      proxy_ssl_verify on;
      proxy_ssl_name localhost;
      proxy_buffering off;
      proxy_read_timeout 1h;
    }}
  }}
}}
"""

HAPROXY = """
global
  nbthread 2
  maxconn 9000
  log stdout format raw local0
defaults
  mode http
  timeout connect 5s
  timeout client 1h
  timeout server 1h
  timeout tunnel 1h
frontend http
  log global
  option httplog
  option forwardfor
  bind 127.0.0.1:{port} ssl crt {folder}/both.pem alpn h2,http/1.1
  default_backend cluster
backend cluster
  http-reuse always
  server one {upstream} ssl verify required ca-file {folder}/ca.crt verifyhost localhost alpn h2,http/1.1
frontend tcp
  mode tcp
  bind 127.0.0.1:{tcp_port} ssl crt {folder}/both.pem
  default_backend tcp
backend tcp
  mode tcp
  server one {upstream} ssl verify required ca-file {folder}/ca.crt verifyhost localhost
"""

KUBECONFIG = """
apiVersion: v1
kind: Config
current-context: bench
contexts: [{{name: bench, context: {{cluster: bench, user: bench}}}}]
clusters: [{{name: bench, cluster: {{server: "https://{upstream}", certificate-authority: {folder}/ca.crt,
  tls-server-name: localhost}}}}]
users: [{{name: bench, user: {{}}}}]
"""


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def until(holds, what, seconds=20):
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end:
            raise SystemExit(f"it did not come about that {what}")
        time.sleep(0.02)


def listens(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


class Proxy:
    """One proxy and its processes."""

    def __init__(self, name, port, command, output, environment=None):
        self.name, self.port = name, port
        self.process = subprocess.Popen(
            command, stdout=open(output, "wb"), stderr=subprocess.STDOUT, env=environment
        )
        try:
            until(lambda: listens(port), f"{name} listens")
        except SystemExit as error:
            raise SystemExit(f"{error}: {output.read_text(errors='replace')}") from error

    def pids(self):
        children = pathlib.Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return [self.process.pid, *map(int, children.split())]

    def cpu(self):
        """Seconds of processor time until now."""
        ticks = 0
        for pid in self.pids():
            fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
            ticks += int(fields[11]) + int(fields[12])
        return ticks / TICK

    def memory(self, key):
        """Bytes, by a key of /proc/PID/status."""
        text = "".join(pathlib.Path(f"/proc/{pid}/status").read_text() for pid in self.pids())
        return sum(int(kib) for kib in re.findall(rf"^{key}:\s+(\d+) kB", text, re.M)) * 1024

    def forget_peak(self):
        for pid in self.pids():
            pathlib.Path(f"/proc/{pid}/clear_refs").write_text("5")

    def end(self):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def run(command):
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command))}: {done.stdout}{done.stderr}")
    return done.stdout


class Bench:
    def __init__(self, folder, kaudit, upstream, pace, rounds):
        self.folder, self.kaudit, self.pace, self.rounds = folder, kaudit, pace, rounds
        self.rows = []
        new_key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
        run(
            ["openssl", "req", "-x509", *new_key, "-days", "2", "-subj", "/CN=bench"]
            + ["-keyout", folder / "ca.key", "-out", folder / "ca.crt"]
        )
        run(
            ["openssl", "req", "-x509", *new_key, "-days", "2", "-subj", "/CN=localhost"]
            + ["-CA", folder / "ca.crt", "-CAkey", folder / "ca.key", "-addext", "basicConstraints=critical,CA:FALSE"]
            + ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
            + ["-keyout", folder / "tls.key", "-out", folder / "tls.crt"]
        )
        (folder / "both.pem").write_text((folder / "tls.crt").read_text() + (folder / "tls.key").read_text())
        if upstream is None:
            # Whoever brings a server of their own says where it is.
            return
        self.server = subprocess.Popen(
            [upstream, folder / "tls.crt", folder / "tls.key"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.upstream = self.server.stdout.readline().strip()

    def values(self, port, **more):
        return {"folder": self.folder, "upstream": self.upstream, "port": port, **more}

    def nginx(self):
        port, file = free_port(), self.folder / "nginx.conf"
        file.write_text(NGINX.format(**self.values(port)))
        return Proxy("nginx", port, ["nginx", "-c", file], self.folder / "nginx.out")

    def haproxy(self):
        port, tcp_port, file = free_port(), free_port(), self.folder / "haproxy.cfg"
        file.write_text(HAPROXY.format(**self.values(port, tcp_port=tcp_port)))
        proxy = Proxy("haproxy", port, ["haproxy", "-f", file], self.folder / "haproxy.log")
        proxy.tcp_port = tcp_port
        return proxy

    def gateway(self, name, policy, *flags):
        port, metrics = free_port(), free_port()
        stem = self.folder / name.replace(" ", "-")
        kubeconfig, policy_file = stem.with_suffix(".kubeconfig"), stem.with_suffix(".yaml")
        kubeconfig.write_text(KUBECONFIG.format(**self.values(port)))
        policy_file.write_text(policy)
        command = [self.kaudit, "run", "--role", "gateway", "--listen", f"127.0.0.1:{port}"]
        command += ["--metrics-listen", f"127.0.0.1:{metrics}", "--upstream-kubeconfig", kubeconfig]
        command += ["--tls-cert-file", self.folder / "tls.crt", "--tls-private-key-file", self.folder / "tls.key"]
        command += ["--audit-policy-file", policy_file, "--audit-log-path", stem.with_suffix(".log")]
        command += ["--max-connections-per-address", "10000"]
        return Proxy(name, port, [*command, *flags], stem.with_suffix(".out"))

    def row(self, goal, what, unit, figures, bound):
        """`figures` by proxy; the first is the peer."""
        names = list(figures)
        peer, own = figures[names[0]], figures[names[-1]]
        self.rows.append((goal, what, unit, figures, own / peer if peer else None, bound))
        print(goal, what, unit, {name: round(value, 3) for name, value in figures.items()}, flush=True)

    def in_turns(self, proxies, measure):
        """Medians of what `measure` says of each, in turns."""
        found = {proxy.name: [] for proxy in proxies}
        for proxy in proxies:
            measure(proxy)
        for _ in range(self.rounds):
            for proxy in proxies:
                found[proxy.name].append(measure(proxy))
        return {name: statistics.median(values) for name, values in found.items()}

    def cpu_per_request(self, target, seconds=4):
        def measure(proxy):
            before = proxy.cpu()
            said = run(
                ["wrk", "-t1", "-c32", f"-d{seconds}s", "-H", TOKEN, f"https://127.0.0.1:{proxy.port}{target}"]
            )
            wrong = re.search(r"Non-2xx.*|Socket errors.*", said)
            if wrong:
                raise SystemExit(f"{proxy.name}: {wrong[0]}")
            return (proxy.cpu() - before) * 1e6 / int(re.search(r"(\d+) requests in", said)[1])

        return measure

    def h1(self):
        proxies = [self.nginx(), self.haproxy(), self.gateway("kaudit", METADATA)]
        for target, size in ((SMALL, "1 KiB"), (MEDIUM, "64 KiB")):
            figures = self.in_turns(proxies, self.cpu_per_request(target))
            self.row("P1", f"GET of {size}, HTTP/1.1, Metadata", "us CPU", figures, "1.8" if size == "1 KiB" else "")
        self.end(proxies)

    def none(self):
        proxies = [self.nginx(), self.gateway("kaudit", NONE)]
        figures = self.in_turns(proxies, self.cpu_per_request(SMALL))
        self.row("P2", "the same at level None", "us CPU", figures, "1.4")
        self.end(proxies)

    def delays(self, port):
        """Microseconds at 1,000 requests a second."""
        where = [self.folder / "ca.crt", f"127.0.0.1:{port}", SMALL, TOKEN]
        return json.loads(run([self.pace, *where, "1000", "6"]))

    def delay(self):
        proxies = [self.nginx(), self.gateway("kaudit", METADATA)]
        direct = []
        server_port = int(self.upstream.rsplit(":", 1)[1])

        def measure(proxy):
            direct.append(self.delays(server_port)["p99"] / 1000)
            return self.delays(proxy.port)["p99"] / 1000

        figures = self.in_turns(proxies, measure)
        there = statistics.median(direct)
        added = {name: value - there for name, value in figures.items()}
        self.row("P3", f"added p99 at 1,000 requests/s (without a proxy {there:.2f} ms)", "ms", added, "2, and 1 ms")
        self.end(proxies)

    def h2(self):
        proxies = [self.haproxy(), self.gateway("kaudit", METADATA)]

        def measure(proxy):
            before = proxy.cpu()
            said = run(
                ["h2load", "-t1", "-c1", "-m100", "-n60000", "-H", TOKEN, f"https://127.0.0.1:{proxy.port}{SMALL}"]
            )
            succeeded = int(re.search(r"(\d+) succeeded", said)[1])
            if succeeded != 60000:
                raise SystemExit(f"{proxy.name}: {said}")
            return (proxy.cpu() - before) * 1e6 / succeeded

        self.row("P4", "GET of 1 KiB, HTTP/2 on both sides", "us CPU", self.in_turns(proxies, measure), "1.5")
        self.end(proxies)

    def list(self):
        proxies = [self.nginx(), self.gateway("kaudit", METADATA)]
        extra = {proxy.name: [] for proxy in proxies}

        def measure(proxy):
            proxy.forget_peak()
            before = proxy.memory("VmRSS")
            start = time.monotonic()
            for _ in range(5):
                run(
                    ["curl", "-sS", "--http1.1", "--cacert", self.folder / "ca.crt", "-H", TOKEN, "-o", "/dev/null"]
                    + [f"https://localhost:{proxy.port}{LIST}", "--resolve", f"localhost:{proxy.port}:127.0.0.1"]
                )
            took = time.monotonic() - start
            extra[proxy.name].append((proxy.memory("VmHWM") - before) / 1e6)
            return 5 * 50 / took

        figures = self.in_turns(proxies, measure)
        self.row("P7", "list of 50 MB", "MB/s", figures, ">= 0.8")
        self.row("P7", "memory that it took", "MB", {name: max(all_) for name, all_ in extra.items()}, "16 MB")
        self.end(proxies)

    def watch(self):
        for protocol, command, bound in (
            ("HTTP/1.1", ["h2load", "--h1", f"-c{WATCHES}", f"-n{WATCHES}"], "40 KiB"),
            ("HTTP/2", ["h2load", f"-c{WATCHES // 100}", "-m100", f"-n{WATCHES}"], "12 KiB"),
        ):
            figures = {}
            for begin in (self.haproxy, lambda: self.gateway("kaudit", METADATA)):
                proxy = begin()
                self.cpu_per_request(SMALL, 1)(proxy)
                before = proxy.memory("VmRSS")
                opened = subprocess.Popen(
                    [*command, "-t1", "-H", TOKEN, f"https://127.0.0.1:{proxy.port}{WATCH}"],
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                )
                last, still = 0, 0
                until_end = time.monotonic() + 60
                # Until nothing changes any more for two seconds.
                while still < 8 and time.monotonic() < until_end:
                    time.sleep(0.25)
                    now = proxy.cpu()
                    still = still + 1 if now == last else 0
                    last = now
                figures[proxy.name] = (proxy.memory("VmRSS") - before) / WATCHES / 1024
                opened.kill()
                opened.wait()
                proxy.end()
            self.row("P8", f"one of {WATCHES} idle watches, {protocol}", "KiB", figures, bound)

    def tunnel(self):
        proxies = [self.haproxy(), self.gateway("kaudit", METADATA)]
        context = ssl.create_default_context(cafile=self.folder / "ca.crt")
        context.set_alpn_protocols(["http/1.1"])

        def measure(proxy):
            port = getattr(proxy, "tcp_port", proxy.port)
            before = proxy.cpu()
            with socket.create_connection(("127.0.0.1", port)) as plain:
                with context.wrap_socket(plain, server_hostname="localhost") as stream:
                    head = f"GET {EXEC}{TUNNEL_BYTES} HTTP/1.1\r\nHost: localhost\r\n{TOKEN}\r\n"
                    stream.sendall(f"{head}Connection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\r\n".encode())
                    room, got, said = bytearray(1 << 20), 0, b""
                    while b"\r\n\r\n" not in said:
                        some = stream.recv(4096)
                        if not some:
                            raise SystemExit(f"{proxy.name}: {said!r}")
                        said += some
                    got = len(said.split(b"\r\n\r\n", 1)[1])
                    while some := stream.recv_into(room):
                        got += some
            if got != TUNNEL_BYTES:
                raise SystemExit(f"{proxy.name}: {got} bytes came through")
            return (proxy.cpu() - before) * 1e3

        self.row("P9", "exec of 1 GiB", "ms CPU", self.in_turns(proxies, measure), "1.2")
        self.end(proxies)

    @staticmethod
    def end(proxies):
        for proxy in proxies:
            proxy.end()

    def table(self):
        print("\n| goal | what | unit | nginx | haproxy | kaudit | ratio | goal |")
        print("| --- | --- | --- | ---: | ---: | ---: | ---: | --- |")
        for goal, what, unit, figures, ratio, bound in self.rows:
            digits = 2 if unit == "ms" else 1
            cells = [f"{figures[name]:.{digits}f}" if name in figures else "" for name in ("nginx", "haproxy", "kaudit")]
            print(f"| {goal} | {what} | {unit} | {' | '.join(cells)} | {ratio or 0:.2f} | {bound} |")


def main():
    kaudit, upstream, pace, rounds, *parts = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(pathlib.Path(folder), os.path.abspath(kaudit), upstream, pace, int(rounds))
        try:
            for part in parts or ["h1", "none", "delay", "h2", "list", "watch", "tunnel"]:
                getattr(bench, part)()
        finally:
            bench.server.stdin.close()
            bench.server.wait()
        bench.table()


if __name__ == "__main__":
    main()
