"""Proxies before a real kube-apiserver: processor time for a request, and delays.

The server of `bench/gateway` takes hardly any time, so that it is seen what a proxy takes; here it is seen what that is
beside a server which takes most of the time itself.

Usage: speed.py ORACLE KAUDIT PACE, where ORACLE has what build.sh makes, and PACE is the benchmark of that name of
kaudit-gateway.
"""

import importlib.util
import json
import pathlib
import re
import shutil
import ssl
import statistics
import sys
import tempfile
import time
import urllib.error
import urllib.request

import servers

ROUNDS = 3
STREAMED = 20000
NOTHING = "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: None}]\n"


def harness():
    path = pathlib.Path(__file__).resolve().parents[2] / "bench" / "gateway.py"
    spec = importlib.util.spec_from_file_location("gateway", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Cluster(servers.Servers):
    """A kube-apiserver with the certificate of the benchmark, without audit logs, and one object."""

    def start(self, bench):
        self._keys()
        shutil.copy(bench.folder / "tls.crt", self.path("server.crt"))
        shutil.copy(bench.folder / "tls.key", self.path("server.key"))
        pathlib.Path(self.path("tokens.csv")).write_text(servers.TOKENS)
        pathlib.Path(self.path("policy.yaml")).write_text(NOTHING)
        self.kubelet = servers.Kubelet(self.path("server.crt"), self.path("server.key"))
        self._etcd_and_api_server()

    def ask(self, method, path, body=None):
        request = urllib.request.Request(
            f"https://127.0.0.1:{self.direct}{path}",
            method=method,
            data=body and json.dumps(body).encode(),
            headers={"Authorization": "Bearer admin-token", "Content-Type": "application/json"},
        )
        return urllib.request.urlopen(request, context=servers.insecure()).read()

    def make(self, path, name):
        """Makes a ConfigMap of about a kilobyte, as soon as the server lets anybody."""
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"v": "v" * 700}}
        end = time.monotonic() + servers.PATIENCE_S
        while True:
            try:
                return self.ask("POST", path.removesuffix(f"/{name}"), body)
            except (OSError, urllib.error.HTTPError):
                if time.monotonic() > end:
                    raise
                time.sleep(0.5)


def main():
    oracle, kaudit, pace = sys.argv[1:]
    gateway = harness()
    gateway.TOKEN = "Authorization: Bearer admin-token"
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as data:
        bench = gateway.Bench(pathlib.Path(folder), kaudit, None, pace, ROUNDS)
        cluster = Cluster(oracle, kaudit, data)
        try:
            cluster.start(bench)
            cluster.make(gateway.SMALL, "small")
            bench.upstream = f"127.0.0.1:{cluster.direct}"
            nginx, haproxy, own = bench.nginx(), bench.haproxy(), bench.gateway("kaudit", gateway.METADATA)

            def streamed(proxy):
                before = proxy.cpu()
                url = f"https://127.0.0.1:{proxy.port}{gateway.SMALL}"
                said = gateway.run(
                    ["h2load", "-t1", "-c1", "-m100", f"-n{STREAMED}", "-H", gateway.TOKEN, url]
                )
                if int(re.search(r"(\d+) succeeded", said)[1]) != STREAMED:
                    raise SystemExit(f"{proxy.name}: {said}")
                return (proxy.cpu() - before) * 1e6 / STREAMED

            bench.row("P1", "HTTP/1.1", "us CPU", bench.in_turns([nginx, own], bench.cpu_per_request(gateway.SMALL)), "")
            bench.row("P4", "HTTP/2, 100 streams", "us CPU", bench.in_turns([haproxy, own], streamed), "")
            delays = {"without": [], "nginx": [], "kaudit": []}
            ports = {"without": cluster.direct, "nginx": nginx.port, "kaudit": own.port}
            for _ in range(ROUNDS):
                for name, port in ports.items():
                    delays[name].append(bench.delays(port))
            for name, found in delays.items():
                print(name, {key: statistics.median(one[key] for one in found) for key in found[0]}, "us")
            bench.end([nginx, haproxy, own])
        finally:
            cluster.stop()


if __name__ == "__main__":
    main()
