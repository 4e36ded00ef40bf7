"""Whether the store works in a bucket: against moto's S3 server, with what breaks in the world.

Follows an audit log with `kaudit run --role collect,store` whose store is in a bucket, and looks at what is there with
an S3 client of its own. Kills it while it seals, takes the bucket away and gives it back, lets a second kaudit try the
same place, merges, expires, reads with a cold cache. After each step the events of the log must be there once each.
Ends with 1 and what was wrong.

Usage: bucket.py KAUDIT LOG...
"""

import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

import boto3

PATIENCE_S = 120
BUCKET = "audit-prod"
PREFIX = "kaudit/eu-1"
CLUSTER = "prod-eu.1"
ENVIRONMENT = {
    **os.environ,
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "not-to-be-logged",
    "AWS_REGION": "eu-central-1",
}


def expect(what, found, wanted):
    if found != wanted:
        raise SystemExit(f"{what}: {found!r}, and not {wanted!r}")


def until(what, holds, seconds=PATIENCE_S):
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end:
            raise SystemExit(f"it did not come about that {what}")
        time.sleep(0.05)


class Server:
    """moto_server; what it holds goes when it ends."""

    def __init__(self, folder):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        server = pathlib.Path(sys.executable).parent / "moto_server"
        log = open(folder / "moto.log", "wb")
        self.process = subprocess.Popen(
            [server, "-H", "127.0.0.1", "-p", str(self.port)], stdout=log, stderr=log, env=ENVIRONMENT
        )
        until("moto serves", self.answers)
        self.s3 = boto3.client(
            "s3",
            endpoint_url=self.url,
            region_name="eu-central-1",
            aws_access_key_id="testing",
            aws_secret_access_key="testing",
        )
        self.s3.create_bucket(
            Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": "eu-central-1"}
        )

    def answers(self):
        try:
            urllib.request.urlopen(self.url, timeout=1).close()
        except OSError:
            return False
        return True

    def pause(self):
        """Connections are taken and nothing is answered, as behind a firewall that swallows packets."""
        self.process.send_signal(signal.SIGSTOP)

    def resume(self):
        self.process.send_signal(signal.SIGCONT)

    def keys(self, below=""):
        pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=f"{PREFIX}/{below}")
        return {object["Key"]: object["Size"] for page in pages for object in page.get("Contents", [])}

    def manifest(self):
        newest = max(self.keys("manifest/"))
        return json.loads(self.s3.get_object(Bucket=BUCKET, Key=newest)["Body"].read())

    def files_are_those_of_the_manifest(self):
        named = {f"{PREFIX}/{part['path']}": part["bytes"] for part in self.manifest()["parts"]}
        expect("files in the bucket", self.keys("cluster="), named)

    def end(self):
        self.resume()
        self.process.terminate()
        self.process.wait(30)


class Kaudit:
    """`kaudit run` with a data directory."""

    def __init__(self, program, folder, log, server, store="", seal_after="200ms"):
        self.program, self.folder, self.data = program, folder, folder / "data"
        folder.mkdir(exist_ok=True)
        self.config = folder / "kaudit.yaml"
        self.config.write_text(
            "apiVersion: kaudit.dev/v1alpha1\nkind: Config\n"
            f"cluster: {json.dumps(CLUSTER)}\ndataDir: {json.dumps(str(self.data))}\n"
            "collect:\n  files:\n"
            f"  - {{instance: cp-1, path: {json.dumps(str(log))}, start: beginning}}\n"
            "journal: {minFree: 0}\n"
            "store:\n"
            f"  location: s3://{BUCKET}/{PREFIX}\n"
            f"  s3: {{endpoint: '{server.url}', allowHttp: true{store}}}\n"
            f"  sealAfter: {seal_after}\n"
            "api: {listen: 127.0.0.1:0}\nmetrics: {listen: 127.0.0.1:0}\n"
        )
        self.said = folder / "kaudit.log"
        self.process = None
        self.asked = 0

    def start(self):
        with open(self.said, "ab") as err:
            err.write(b"---- start\n")
            err.flush()
            self.process = subprocess.Popen(
                [self.program, "run", "--role", "collect,store", "-c", self.config], stderr=err, env=ENVIRONMENT
            )
        until("kaudit serves", lambda: self.address("metrics") or self.process.poll() is not None)
        if self.process.poll() is not None:
            raise SystemExit(f"kaudit did not start:\n{self.said.read_text()}")
        return self

    def address(self, name):
        last = self.said.read_text().rpartition("---- start\n")[2]
        found = re.search(rf" serving .*\b{name}=(\S+)", last)
        return found and found.group(1)

    def metric(self, name):
        text = urllib.request.urlopen(f"http://{self.address('metrics')}/metrics", timeout=30).read().decode()
        for line in text.splitlines():
            if line.startswith(f"{name} "):
                return int(float(line.rsplit(" ", 1)[1]))
        return None

    def ready(self):
        url = f"http://{self.address('metrics')}/readyz?verbose"
        return urllib.request.urlopen(url, timeout=30).read().decode()

    def sealed(self, count):
        def holds():
            return self.metric("kaudit_store_sealed_events_total") >= count + self.asked and (
                self.metric("kaudit_store_unsealed_events") == 0
            )

        until(f"{count} events are sealed", holds)

    def stop(self, how=signal.SIGTERM):
        self.process.send_signal(how)
        code = self.process.wait(60)
        if how == signal.SIGTERM:
            expect("exit code", code, 0)

    def ask(self, query):
        self.asked += 1
        token = (self.data / "token").read_text().strip()
        request = urllib.request.Request(
            f"http://{self.address('api')}/api/v1/{query}", headers={"Authorization": f"Bearer {token}"}
        )
        try:
            with urllib.request.urlopen(request, timeout=120) as response:
                return response.status, json.loads(response.read())
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read())

    def run(self, *command, code=0):
        done = subprocess.run([self.program, *command], capture_output=True, env=ENVIRONMENT)
        if done.returncode != code:
            raise SystemExit(f"kaudit {' '.join(map(str, command))}: {done.returncode}\n{done.stderr.decode()}")
        return done.stdout

    def has_each_once(self, lines):
        """Every line of the log is in the store, byte by byte."""
        out = self.folder / f"export-{time.monotonic_ns()}"
        # What was asked over the API is recorded as well.
        self.run("export", 'not source = "kaudit"', "--store", self.data, "-O", out)
        events = self.run("query", "--from", out / "events.ndjson.zst", "--order", "oldest", "--limit", "0", "-o", "raw")
        expect("events in the store", sorted(events.splitlines()) == sorted(lines), True)
        verified = json.loads(self.run("verify", self.data, "-o", "json"))
        expect("findings of verify", verified["findings"], [])

    def says_no_secret(self):
        for path in [self.said, *self.data.rglob("*.json")]:
            expect(f"a secret in {path}", b"not-to-be-logged" in path.read_bytes(), False)


def lines_of(kaudit, logs):
    lines = []
    for log in logs:
        command = [kaudit, "query", "--from", log, "--order", "oldest", "--limit", "0", "-o", "raw"]
        lines += subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout.splitlines()
    # The same event twice would be kept once.
    return list(dict.fromkeys(lines))


def drop_cache(data):
    for file in (data / "store").rglob("*.parquet"):
        file.unlink()


def seals(program, folder, log, server, lines):
    kaudit = Kaudit(program, folder / "a", log, server).start()
    third = len(lines) // 3
    with open(log, "ab") as out:
        out.write(b"".join(line + b"\n" for line in lines[:third]))
    began = time.monotonic()
    kaudit.sealed(third)
    print(f"sealed {third} events in {time.monotonic() - began:.1f} s, {len(server.manifest()['parts'])} files")
    server.files_are_those_of_the_manifest()
    for number, killed in enumerate(range(third, 2 * third, max(third // 6, 1))):
        with open(log, "ab") as out:
            out.write(b"".join(line + b"\n" for line in lines[killed : killed + third // 6]))
        # Somewhere in a seal: files, manifest, or nothing of it is in the bucket.
        time.sleep(0.15 + 0.06 * number)
        kaudit.stop(signal.SIGKILL)
        kaudit.start()
    written = third + len(range(third, 2 * third, max(third // 6, 1))) * (third // 6)
    kaudit.sealed(written)
    kaudit.stop()
    server.files_are_those_of_the_manifest()
    kaudit.has_each_once(lines[:written])
    print(f"killed {number + 1} times while it sealed: {written} events, each once")
    return kaudit, written


def is_alone(program, folder, log, server, kaudit):
    other = Kaudit(program, folder / "b", log, server)
    said = subprocess.run(
        [program, "run", "--role", "collect,store", "-c", other.config], capture_output=True, env=ENVIRONMENT
    )
    owner = server.manifest()["writer"]
    expect("a second writer starts", said.returncode == 0, False)
    expect("it names the owner", f"written by kaudit {owner}" in said.stderr.decode(), True)
    # Two that do not know of each other: the conditional request decides.
    key = max(server.keys("manifest/"))
    try:
        server.s3.put_object(Bucket=BUCKET, Key=key, Body=b"{}", IfNoneMatch="*")
        raise SystemExit("the server knows no conditions")
    except server.s3.exceptions.ClientError as error:
        expect("the answer", error.response["Error"]["Code"], "PreconditionFailed")
    manifest = server.manifest()
    stolen = {**manifest, "version": manifest["version"] + 1, "writer": "somebody"}
    kaudit.start()
    number = f"{stolen['version']:020}"
    server.s3.put_object(Bucket=BUCKET, Key=f"{PREFIX}/manifest/{number}.json", Body=json.dumps(stolen).encode())
    return number


def conflict_is_told(server, kaudit, log, lines, written, number):
    with open(log, "ab") as out:
        out.write(lines[written] + b"\n")
    until("the conflict is told", lambda: "another writer owns this store" in kaudit.ready())
    expect("it is counted", kaudit.metric('kaudit_store_errors_total{work="sealing",reason="other_writer"}') > 0, True)
    expect("the version stays", f"{PREFIX}/manifest/{number}.json" in server.keys("manifest/"), True)
    server.s3.delete_object(Bucket=BUCKET, Key=f"{PREFIX}/manifest/{number}.json")
    kaudit.sealed(written + 1)
    kaudit.stop()
    print("a version of another writer is left alone, and told of; sealing goes on when it is gone")
    return written + 1


def outlives_an_outage(server, kaudit, log, lines, written):
    kaudit.start()
    drop_cache(kaudit.data)
    server.pause()
    with open(log, "ab") as out:
        out.write(b"".join(line + b"\n" for line in lines[written:]))
    until("the failure is told", lambda: "[-]store/sealing" in kaudit.ready(), 300)
    # What is in memory is shown; what needs a file that is not here has an end within the budget.
    began = time.monotonic()
    status, answer = kaudit.ask("events?limit=1&budget=2000")
    took = time.monotonic() - began
    is_honest = status == 503 or (status == 200 and answer["partial"])
    expect(f"an honest answer ({status}, {json.dumps(answer)[:400]})", is_honest, True)
    expect("it comes in time", took < 10, True)
    # A start without the bucket.
    kaudit.stop(signal.SIGKILL)
    kaudit.start()
    expect("the doubt is told", "[-]store/bucket" in kaudit.ready(), True)
    server.resume()
    kaudit.sealed(len(lines))
    kaudit.stop()
    # What the killed one had sent may have been stored long after it; the next start removes it.
    kaudit.start()
    kaudit.stop()
    server.files_are_those_of_the_manifest()
    kaudit.has_each_once(lines)
    print(f"the bucket was away: an answer in {took:.1f} s, {len(lines)} events afterwards, each once")


def is_looked_after(server, kaudit, lines):
    stats = json.loads(kaudit.run("store", "stats", "--data-dir", kaudit.data, "-o", "json"))
    expect("events", stats["events"], len(lines) + kaudit.asked)
    before = len(server.manifest()["parts"])
    kaudit.run("store", "compact", "--data-dir", kaudit.data)
    after = server.manifest()["parts"]
    # What was asked is of today, which is not over.
    today = time.strftime("dt=%Y-%m-%d", time.gmtime())
    expect("folders", {part["path"].split("/")[2] for part in after if today not in part["path"]}, {"hour=all"})
    server.files_are_those_of_the_manifest()
    kaudit.has_each_once(lines)
    print(f"compacted {before} files into {len(after)}")
    kaudit.start()
    drop_cache(kaudit.data)
    for state in ("cold", "warm"):
        began = time.monotonic()
        status, answer = kaudit.ask("events?limit=10&q=verb%3A%20delete")
        expect("status", status, 200)
        expect("partial", answer["partial"], False)
        print(f"a question with a {state} cache: {1000 * (time.monotonic() - began):.0f} ms")
    expect("files came", kaudit.metric("kaudit_store_fetched_files_total") >= len(after), True)
    kaudit.stop()
    config = kaudit.config.read_text().replace("store:\n", "store:\n  retention: 1h\n")
    kaudit.config.write_text(config)
    kaudit.run("store", "retain", "--data-dir", kaudit.data, "-c", kaudit.config, "--yes")
    left = server.manifest()
    expect("events that went", left["counts"]["expired"], {"age": len(lines)})
    expect("events that stay", sum(part["rows"] for part in left["parts"]), kaudit.asked)
    server.files_are_those_of_the_manifest()
    print("the log's events have expired, and their files are gone")


def main(program, logs):
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        lines = lines_of(program, logs)
        log = folder / "audit.log"
        log.touch()
        server = Server(folder)
        try:
            kaudit, written = seals(program, folder, log, server, lines)
            number = is_alone(program, folder, log, server, kaudit)
            written = conflict_is_told(server, kaudit, log, lines, written, number)
            outlives_an_outage(server, kaudit, log, lines, written)
            is_looked_after(server, kaudit, lines)
            kaudit.says_no_secret()
        finally:
            if "kaudit" in locals() and kaudit.process and kaudit.process.poll() is None:
                kaudit.process.kill()
            server.end()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
