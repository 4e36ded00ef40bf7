"""Whether another engine reads in the store's files what was in the log.

Follows audit logs with `kaudit run --role collect,store`, stops it when everything is in files, and compares what
DuckDB finds in them, asked as docs/store.md says, with a walk over the log's JSON: sums, filters, and every column of
every event. Then once more after the day was compacted. Ends with 1 and the differences when there are any.

Usage: duckdb_reads.py KAUDIT LOG...
"""

import collections
import glob
import json
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from datetime import datetime, timedelta, timezone

import duckdb

CLUSTER = "prod-eu-1"
PATIENCE_S = 120
EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)

differences = []


def same(what, found, expected):
    if found != expected:
        differences.append(f"{what}:\n  DuckDB {short(found)}\n  log    {short(expected)}")


def short(value):
    text = repr(value)
    return text if len(text) <= 600 else f"{text[:600]}... ({len(text)} characters)"


# The log


class Event:
    """A line of the log and the columns that it should have."""

    def __init__(self, line):
        self.line = line
        self.json = json.loads(line.decode("utf-8", "replace"))

    def at(self, *path):
        value = self.json
        for name in path:
            if not isinstance(value, dict):
                return None
            value = value.get(name)
        return value

    def text(self, *path):
        return self.at(*path) or None

    def columns(self):
        annotations = self.at("annotations")
        status = self.at("responseStatus") or {}
        ts, received = micros(self.at("stageTimestamp")), micros(self.at("requestReceivedTimestamp"))
        return {
            "ts": ts,
            "received_delta": ts - received,
            "cluster": CLUSTER,
            "instance": "cp-1",
            "audit_id": self.at("auditID") or "",
            "level": self.at("level") or "",
            "stage": self.at("stage") or "",
            "verb": self.at("verb") or "",
            "request_uri": self.at("requestURI") or "",
            "decision": (annotations or {}).get("authorization.k8s.io/decision"),
            "user": self.at("user", "username") or "",
            "user_uid": self.text("user", "uid"),
            "groups": self.text("user", "groups"),
            "user_extra": self.text("user", "extra"),
            "impersonated_user": self.text("impersonatedUser", "username"),
            "impersonated_groups": self.text("impersonatedUser", "groups"),
            "source_ips": self.text("sourceIPs"),
            "user_agent": self.text("userAgent"),
            "resource": self.text("objectRef", "resource"),
            "namespace": self.text("objectRef", "namespace"),
            "name": self.text("objectRef", "name"),
            "subresource": self.text("objectRef", "subresource"),
            "api_group": self.text("objectRef", "apiGroup"),
            "api_version": self.text("objectRef", "apiVersion"),
            "object_uid": self.text("objectRef", "uid"),
            "resource_version": self.text("objectRef", "resourceVersion"),
            "code": status.get("code"),
            "reason": status.get("reason"),
            "message": status.get("message"),
            "status": status.get("status"),
            "annotations": list(annotations.items()) if annotations else None,
            "bytes": len(self.line),
            "request_object": self.at("requestObject"),
            "response_object": self.at("responseObject"),
        }


BODIES = ("user_extra", "request_object", "response_object")


def micros(text):
    return (datetime.fromisoformat(text.replace("Z", "+00:00")) - EPOCH) // timedelta(microseconds=1)


def unpack(kaudit, logs, into):
    """Python knows no zstd; kaudit gives the lines as they are."""
    with open(into, "wb") as out:
        for log in logs:
            command = [kaudit, "query", "--from", log, "--order", "oldest", "--limit", "0", "-o", "raw"]
            out.write(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    lines = into.read_bytes().split(b"\n")
    assert lines.pop() == b"", "the last line has no end"
    return [Event(line) for line in lines]


# The store


def collect(kaudit, folder, log, count):
    """Runs kaudit over `log` until `count` events are in files; its data directory."""
    data = folder / "data"
    config = folder / "kaudit.yaml"
    config.write_text(
        "apiVersion: kaudit.dev/v1alpha1\n"
        "kind: Config\n"
        f"cluster: {json.dumps(CLUSTER)}\n"
        f"dataDir: {json.dumps(str(data))}\n"
        "collect:\n"
        "  files:\n"
        f"  - {{instance: cp-1, path: {json.dumps(str(log))}, start: beginning}}\n"
        "journal: {minFree: 0}\n"
        "store: {sealAfter: 200ms}\n"
        "api: {listen: 127.0.0.1:0}\n"
        "metrics: {listen: 127.0.0.1:0}\n"
    )
    said = folder / "kaudit.log"
    with open(said, "wb") as err:
        process = subprocess.Popen(
            [kaudit, "run", "--role", "collect,store", "-c", config], stderr=err
        )
    try:
        until(process, said, "kaudit has said where its metrics are", lambda: address_of_metrics(said))
        url = f"http://{address_of_metrics(said)}/metrics"
        until(process, said, f"{count} events are sealed", lambda: all_sealed(url, count))
    finally:
        process.send_signal(signal.SIGTERM)
        code = process.wait(60)
    if code != 0:
        raise SystemExit(f"kaudit run ended with {code}:\n{said.read_text()}")
    return data


def until(process, said, what, holds):
    end = time.monotonic() + PATIENCE_S
    while not holds():
        if process.poll() is not None or time.monotonic() > end:
            raise SystemExit(f"it did not come about that {what}:\n{said.read_text()}")
        time.sleep(0.05)


def address_of_metrics(said):
    for line in said.read_text().splitlines():
        if " serving " in line:
            for word in line.split():
                if word.startswith("metrics="):
                    return word.removeprefix("metrics=")
    return None


def all_sealed(url, count):
    with urllib.request.urlopen(url, timeout=10) as response:
        values = dict(
            line.rsplit(" ", 1) for line in response.read().decode().splitlines() if not line.startswith("#")
        )
    number = lambda name: int(float(values.get(name, "-1")))
    sealed = number("kaudit_store_sealed_events_total")
    return sealed >= count and number("kaudit_store_unsealed_events") == 0


def newest_manifest(data):
    """The highest number counts."""
    newest = max(glob.glob(f"{data}/store/manifest/*.json"))
    return json.loads(pathlib.Path(newest).read_text())


# The comparison


def by_hive(data):
    return f"read_parquet('{data}/store/cluster=*/dt=*/hour=*/*.parquet', hive_partitioning = true)"


def by_manifest(data):
    paths = [f"{data}/store/{part['path']}" for part in newest_manifest(data)["parts"]]
    return f"read_parquet({paths!r})"


def compare(form, events, table):
    """Everything once through one way to name the files."""
    db = duckdb.connect()
    db.execute(f"CREATE VIEW events AS SELECT * FROM {table}")

    def one(sql, *values):
        return db.execute(sql, list(values)).fetchone()[0]

    def rows(sql, *values):
        return db.execute(sql, list(values)).fetchall()

    same(f"{form}: events", one("SELECT count(*) FROM events"), len(events))
    columns = [event.columns() for event in events]
    for column in ("verb", "user", "code", "decision", "namespace", "level", "stage", "cluster"):
        expected = collections.Counter(event[column] for event in columns)
        found = dict(rows(f'SELECT "{column}", count(*) FROM events GROUP BY ALL'))
        same(f"{form}: events by {column}", found, dict(expected))
    times = sorted(event["ts"] for event in columns)
    found = rows("SELECT epoch_us(min(ts)), epoch_us(max(ts)) FROM events")
    same(f"{form}: the first and the last time", found, [(times[0], times[-1])])

    def filtered(what, condition, value, holds):
        expected = sum(1 for event in columns if holds(event))
        assert expected > 0, f"no event of the log satisfies {what}"
        same(f"{form}: {what}", one(f"SELECT count(*) FROM events WHERE {condition}", value), expected)

    address = collections.Counter(ip for event in columns for ip in event["source_ips"] or []).most_common()[-1][0]
    filtered(
        f"from {address}",
        "list_contains(source_ips, ?)",
        address,
        lambda event: address in (event["source_ips"] or []),
    )
    filtered(
        "of masters",
        "list_contains(groups, ?)",
        "system:masters",
        lambda event: "system:masters" in (event["groups"] or []),
    )
    # The least frequent annotation, so that the map's keys are told apart.
    keys = collections.Counter(key for event in columns for key, _ in event["annotations"] or [])
    key = min(keys, key=lambda key: (keys[key], key))
    value = next(dict(event["annotations"])[key] for event in columns if key in dict(event["annotations"] or []))
    filtered(
        f"with annotation {key}",
        f"annotations['{key}'] = ?",
        value,
        lambda event: dict(event["annotations"] or []).get(key) == value,
    )
    name = next(
        event["request_object"]["metadata"]["name"]
        for event in columns
        if isinstance(event["request_object"], dict) and (event["request_object"].get("metadata") or {}).get("name")
    )

    def named(event):
        body = event["request_object"]
        return isinstance(body, dict) and (body.get("metadata") or {}).get("name") == name

    filtered(f"with a body named {name}", "(request_object->>'$.metadata.name') = ?", name, named)
    if "hive" in form:
        found = rows("SELECT dt::VARCHAR, count(*) FROM events GROUP BY ALL")
        same(f"{form}: events by dt", dict(found), dict(collections.Counter(map(day_of, times))))
    each_event(form, events, columns, db)


def day_of(ts):
    return (EPOCH + timedelta(microseconds=ts)).date().isoformat()


def as_documented(state, events, data):
    """The questions of docs/store.md as they stand there, on a day of this log."""
    columns = [event.columns() for event in events]
    days = collections.Counter(day_of(event["ts"]) for event in columns)
    day = days.most_common(1)[0][0]
    page = pathlib.Path(__file__).parent.parent / "docs" / "store.md"
    blocks = re.findall(r"^```sql\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)
    assert len(blocks) == 2, "docs/store.md has other questions than are known here"
    db = duckdb.connect()
    secrets, forbidden = (
        db.execute(block.replace("'store/", f"'{data}/store/").replace("2026-11-22", day)).fetchall()
        for block in blocks
    )
    expected = [
        (event["ts"], event["user"], event["verb"], event["namespace"], event["name"])
        for event in columns
        if day_of(event["ts"]) == day
        and event["resource"] == "secrets"
        and not event["user"].startswith("system:")
    ]
    assert expected, "nobody reads secrets in the log"
    in_micros = [((row[0] - EPOCH) // timedelta(microseconds=1), *row[1:]) for row in secrets]
    same(f"{state}, docs/store.md, secrets", sorted(in_micros, key=repr), sorted(expected, key=repr))
    expected = collections.Counter(
        (event["user"], ((event["request_object"] or {}).get("metadata") or {}).get("name"))
        for event in columns
        if day_of(event["ts"]) == day
        and "system:authenticated" in (event["groups"] or [])
        and event["decision"] == "forbid"
    )
    assert expected, "nothing is forbidden in the log"
    same(f"{state}, docs/store.md, forbidden", {row[:2]: row[2] for row in forbidden}, dict(expected))


def each_event(form, events, columns, db):
    """Every column of every event. The log is one source, so that the journal's numbers are in its order."""
    names = list(columns[0])
    wanted = ", ".join("epoch_us(ts)" if name == "ts" else f'"{name}"' for name in names)
    found = db.execute(f"SELECT raw, {wanted} FROM events ORDER BY seq").fetchall()
    as_received = 0
    for number, (event, expected, row) in enumerate(zip(events, columns, found)):
        raw, row = row[0], dict(zip(names, row[1:]))
        if raw is not None:
            as_received += 1
            same(f"{form}: raw of line {number + 1}", raw, event.line)
            continue
        for column in BODIES:
            if row[column] is not None:
                if row[column].encode() not in event.line:
                    differences.append(f"{form}: line {number + 1}: {column} does not stand so in the log")
                row[column] = json.loads(row[column])
        if row["annotations"] is not None:
            row["annotations"] = list(row["annotations"].items())
        for column in names:
            same(f"{form}: line {number + 1}: {column}", row[column], expected[column])
    print(f"{form}: {len(found)} events are as in the log, {as_received} of them by their bytes")


def check(kaudit, *command):
    result = subprocess.run([kaudit, *command, "-o", "json"], stdout=subprocess.PIPE)
    if result.returncode != 0:
        raise SystemExit(f"kaudit {' '.join(command)} ended with {result.returncode}: {result.stdout.decode()}")
    return json.loads(result.stdout)


def report():
    if differences:
        for difference in differences[:20]:
            print(difference, file=sys.stderr)
        raise SystemExit(f"{len(differences)} differences")


def main(kaudit, logs):
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        log = folder / "audit.log"
        events = unpack(kaudit, logs, log)
        data = collect(kaudit, folder, log, len(events))
        print(f"DuckDB {duckdb.__version__}, {len(events)} events in {len(newest_manifest(data)['parts'])} files")
        for state in ("sealed", "compacted"):
            if state == "compacted":
                check(kaudit, "store", "compact", "--data-dir", str(data))
                hours = {pathlib.Path(part["path"]).parent.name for part in newest_manifest(data)["parts"]}
                same("folders after compaction", hours, {"hour=all"})
            check(kaudit, "verify", str(data))
            compare(f"{state}, by hive", events, by_hive(data))
            compare(f"{state}, by manifest", events, by_manifest(data))
            as_documented(state, events, data)
            report()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
