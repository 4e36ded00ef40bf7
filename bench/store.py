"""Ten questions to the store's files: kaudit's scan beside DuckDB on the same files, two threads each.

Warm: the median of nine in one process. Cold: the median of five, each in a new process after the kernel has let the
store's files go; the binaries stay in memory. Of kaudit the whole process counts, of DuckDB what it takes to connect
and answer, without Python's start. Fails where the answers have different numbers of rows.

Usage: store.py BENCH FOLDER LOG, where FOLDER has the stores `sealed` and `compacted`
"""

import glob
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time

WARM, COLD = 9, 5
PRIVILEGED = "list_contains(request_object->>'$.spec.containers[*].securityContext.privileged', 'true')"
QUESTIONS = {
    "q1": ("an auditID", "SELECT * FROM events WHERE audit_id = $audit_id"),
    "q2": (
        "deletes of one user in one hour",
        """SELECT * FROM events WHERE "user" = $user AND verb = 'delete'
           AND ts >= make_timestamptz($ts - 1800000000) AND ts < make_timestamptz($ts + 1800000000)
           ORDER BY ts DESC LIMIT 100""",
    ),
    "q3": ("403 by user", 'SELECT "user", count(*) FROM events WHERE code = 403 GROUP BY 1 ORDER BY 2 DESC'),
    "q4": ("by verb", "SELECT verb, count(*) FROM events GROUP BY 1 ORDER BY 2 DESC"),
    "q5": ("bytes by user", 'SELECT "user", sum(bytes) FROM events GROUP BY 1 ORDER BY 2 DESC LIMIT 20'),
    "q6": (
        "secrets read by people, by user, namespace and name",
        """SELECT "user", namespace, name, count(*) FROM events WHERE resource = 'secrets'
           AND verb IN ('get', 'list', 'watch') AND "user" NOT LIKE 'system:%' GROUP BY 1, 2, 3""",
    ),
    "q7": ("`privileged` in request bodies, by its path", f"SELECT count(*) FROM events WHERE {PRIVILEGED}"),
    "q8": ("the newest 100 events, whole", "SELECT * FROM events ORDER BY ts DESC LIMIT 100"),
    "q9": ("by minute", "SELECT epoch_us(ts) // 60000000, count(*) FROM events GROUP BY 1"),
    "q10": (
        "addresses of a service account",
        """SELECT DISTINCT unnest(source_ips) FROM events
           WHERE "user" = 'system:serviceaccount:monitoring:prometheus-k8s'""",
    ),
}
# The same with a cheaper condition before it, which a person who knows the engine would write.
HINTED = f"SELECT count(*) FROM events WHERE request_object LIKE '%privileged%' AND {PRIVILEGED}"
ON_LOG = {
    "q4": "SELECT verb, count(*) FROM read_ndjson($log, columns = {verb: 'VARCHAR'}) GROUP BY 1",
    "q7": "SELECT count(*) FROM (SELECT requestObject AS request_object"
    f" FROM read_ndjson($log, columns = {{requestObject: 'JSON'}}, maximum_object_size = 67108864)) WHERE {PRIVILEGED}",
}


def files(store):
    newest = max(glob.glob(f"{store}/manifest/*.json"))
    return [f"{store}/{part['path']}" for part in json.loads(pathlib.Path(newest).read_text())["parts"]]


def connect(store):
    import duckdb

    db = duckdb.connect()
    db.execute("SET threads = 2; SET TimeZone = 'UTC'")
    db.execute(f"CREATE VIEW events AS SELECT * FROM read_parquet({files(store)!r})")
    return db


def ask(db, sql, values):
    """How many rows the answer has; of a count the count."""
    found = db.execute(sql, {name: value for name, value in values.items() if f"${name}" in sql}).fetchall()
    return found[0][0] if sql.startswith("SELECT count(*)") else len(found)


def forget(store):
    """Lets the kernel drop the store's pages."""
    for path in pathlib.Path(store).rglob("*"):
        if path.is_file():
            file = os.open(path, os.O_RDONLY)
            os.fsync(file)
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(file)


def timed(run):
    begun = time.perf_counter()
    result = run()
    return (time.perf_counter() - begun) * 1e3, result


def warm_duckdb(db, sql, values):
    ask(db, sql, values)
    times, answers = zip(*(timed(lambda: ask(db, sql, values)) for _ in range(WARM)))
    return statistics.median(times), answers[0]


def duckdb_once(store, sql, values):
    """In a process of its own: milliseconds after the import, and the answer."""
    command = [sys.executable, __file__, "--once", store, sql, json.dumps(values)]
    ms, answer = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.split()
    return float(ms), int(answer)


def cold(store, once):
    times = []
    for _ in range(COLD):
        forget(store)
        ms, answer = once()
        times.append(ms)
    return statistics.median(times), answer


def kaudit(bench, how, store, values, number):
    command = [bench, how, store, values["audit_id"], values["user"], str(values["ts"]), number]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.split()


def measure(bench, store, values):
    """Of each question: milliseconds of kaudit and DuckDB, warm and cold."""
    db = connect(store)
    measured = {}
    for number, (_, sql) in QUESTIONS.items():
        _, rows, _, ours, _ = kaudit(bench, "--ask", store, values, number)
        theirs, theirs_rows = warm_duckdb(db, sql, values)
        once = lambda: timed(lambda: int(kaudit(bench, "--once", store, values, number)[1]))
        ours_cold, ours_cold_rows = cold(store, once)
        theirs_cold, theirs_cold_rows = cold(store, lambda: duckdb_once(store, sql, values))
        answers = {int(rows), theirs_rows, ours_cold_rows, theirs_cold_rows}
        if len(answers) != 1:
            raise SystemExit(f"{number}: kaudit has {rows} rows, DuckDB {theirs_rows}")
        measured[number] = (float(ours), theirs, ours_cold, theirs_cold)
    hinted, answer = warm_duckdb(db, HINTED, values)
    print(f"{store}: q7 with LIKE before it: DuckDB {hinted:.0f} ms, {answer} rows", file=sys.stderr)
    return measured


def main(bench, folder, log):
    import duckdb

    db = connect(f"{folder}/sealed")
    found = db.execute(
        """SELECT audit_id, "user", epoch_us(ts) FROM events WHERE verb = 'delete' ORDER BY ts, seq LIMIT 1 OFFSET 250"""
    ).fetchone()
    values = dict(zip(("audit_id", "user", "ts"), found), log=log)
    columns = [measure(bench, f"{folder}/{state}", values) for state in ("sealed", "compacted")]
    print(f"DuckDB {duckdb.__version__}; milliseconds, files as sealed / compacted\n")
    print("| question | kaudit | DuckDB | kaudit, cold | DuckDB, cold |\n|---|---|---|---|---|")
    for number, (what, _) in QUESTIONS.items():
        cells = (" / ".join(f"{column[number][at]:.0f}" for column in columns) for at in range(4))
        print(f"| {number} {what} | {' | '.join(cells)} |")
    for number, sql in ON_LOG.items():
        ms, _ = warm_duckdb(db, sql, values)
        print(f"| {number} on the log itself | | {ms:.0f} | | |")


if sys.argv[1] == "--once":
    import duckdb  # noqa: F401, so that its import is not timed

    store, sql, values = sys.argv[2:]
    ms, answer = timed(lambda: ask(connect(store), sql, json.loads(values)))
    print(ms, answer)
else:
    main(*sys.argv[1:])
