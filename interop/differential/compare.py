"""What is the same in two logs of the same requests, and in two answers to the same question."""

import collections
import gzip
import json
import re

from clients import VARYING

FIELDS = ["level", "requestURI", "verb", "user", "impersonatedUser", "authenticationMetadata", "sourceIPs", "userAgent",
          "objectRef", "responseStatus", "requestObject", "responseObject", "requestReceivedTimestamp",
          "stageTimestamp"]

EQUAL, NORMALISED, DIFFERS = "equal", "normalised", "differs"

RULES = {
    "requestReceivedTimestamp": "each server's own clock; the gateway's is not later",
    "stageTimestamp": "each server's own clock",
    "sourceIPs": "upstream's has the gateway as its last hop",
    "requestObject": "as sent; upstream's is the same and more: defaults and empty fields filled in",
    "responseObject": "the same object, its fields in another order",
    "user": "of a certificate: upstream's is the gateway, which impersonates ours",
    "impersonatedUser": "of a certificate: upstream's is our user, unless ours impersonates as well",
    "authenticationMetadata": "of a certificate: ours is the verb by which our user may impersonate",
    "apiserver.latency.k8s.io": "each server measures its own time",
    "authentication": "what upstream learns of a token is in the user it names",
}


def events(path):
    with open(path, encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def joined(log):
    """Events by auditID, stage, and which of several under that ID it is."""
    seen, found = collections.Counter(), {}
    for event in log:
        key = event["auditID"], event["stage"]
        found[(*key, seen[key])] = event
        seen[key] += 1
    return found


def text(value):
    return json.dumps(value, ensure_ascii=False)


def is_empty(value):
    return value in (None, "", 0, False) or value == {} or value == []


def is_within(sent, seen):
    """Whether everything that was sent is in what was seen."""
    if isinstance(sent, dict) and isinstance(seen, dict):
        return all(is_within(value, seen[key]) if key in seen else is_empty(value) for key, value in sent.items())
    if isinstance(sent, list) and isinstance(seen, list):
        return len(sent) == len(seen) and all(map(is_within, sent, seen))
    return sent == seen


def is_impersonated_by_the_gateway(mine, others):
    """Whether upstream carries the request out as whom the gateway says, with the gateway's own credential."""
    if others.get("user", {}).get("username") != "gateway":
        return False
    # In its first stage upstream does not know yet.
    return (others["stage"] == "RequestReceived"
            or others.get("impersonatedUser") == mine.get("impersonatedUser", mine.get("user")))


def verdict(field, mine, others):
    ours, theirs = mine.get(field), others.get(field)
    if text(ours) == text(theirs):
        return EQUAL
    if field in ("user", "impersonatedUser", "authenticationMetadata") and is_impersonated_by_the_gateway(mine, others):
        return NORMALISED
    if field == "requestReceivedTimestamp" and ours <= theirs:
        return NORMALISED
    if field == "stageTimestamp":
        return NORMALISED
    if field == "sourceIPs" and theirs[:-1] == ours:
        return NORMALISED
    is_encoded = "kaudit.dev/request-object-encoding" in mine.get("annotations", {})
    if field == "requestObject" and not is_encoded and ours is not None and is_within(ours, theirs):
        return NORMALISED
    if field == "responseObject" and ours == theirs:
        return NORMALISED
    return DIFFERS


class Comparison:
    def __init__(self, ours, theirs, names, sent_through):
        self.names = names
        self.counts = collections.defaultdict(collections.Counter)
        self.differences = collections.defaultdict(list)
        ours, theirs = joined(ours), joined(theirs)
        self.joined = sorted(ours.keys() & theirs.keys())
        for key in self.joined:
            self._event(key, ours[key], theirs[key])
        self.only_ours = sorted(ours.keys() - theirs.keys())
        through = {key[0] for key in ours} | set(sent_through)
        self.only_theirs = sorted(key for key in theirs.keys() - ours.keys() if key[0] in through)
        for key in self.only_ours:
            self._differ("event only at the gateway", key, ours[key].get("responseStatus"), None)
        for key in self.only_theirs:
            self._differ("event only upstream", key, None, theirs[key].get("responseStatus"))

    def name(self, key):
        return self.names.get(key[0], "kubectl")

    def _differ(self, field, key, ours, theirs):
        self.differences[field].append((self.name(key), key[1], ours, theirs))

    def _event(self, key, ours, theirs):
        for field in FIELDS:
            if field not in ours and field not in theirs:
                continue
            found = verdict(field, ours, theirs)
            self.counts[field][found] += 1
            if found == DIFFERS:
                self._differ(field, key, ours.get(field), theirs.get(field))
        mine, others = ours.get("annotations", {}), theirs.get("annotations", {})
        for name in sorted(mine.keys() | others.keys()):
            if name.startswith("kaudit.dev/"):
                continue
            field = "annotation " + re.sub(r"^(apiserver\.latency\.k8s\.io)/.*", r"\1/*", name)
            if mine.get(name) == others.get(name):
                self.counts[field][EQUAL] += 1
            elif name.startswith("apiserver.latency.k8s.io/"):
                self.counts[field][NORMALISED] += 1
            else:
                self.counts[field][DIFFERS] += 1
                self._differ(field, key, mine.get(name), others.get(name))


# Answers


def body(answer):
    """The bytes without what the moment put in them."""
    raw = answer.body
    if ("content-encoding", "gzip") in answer.headers:
        raw = gzip.decompress(raw)
    return re.sub(rb'"resourceVersion":"\d+"(?=[^{}]*\},"items")', b'"resourceVersion":""', raw)


def head(answer):
    return sorted((key, value) for key, value in answer.headers if key not in VARYING)


def answers(asked):
    """How many answers are the same, and which are not."""
    counts, differences = collections.Counter(), []
    for name, direct, through in asked:
        same = direct.code == through.code and head(direct) == head(through)
        if same and direct.body == through.body:
            counts[EQUAL] += 1
        elif same and body(direct) == body(through):
            counts[NORMALISED] += 1
        else:
            counts[DIFFERS] += 1
            differences.append((name, direct, through))
    return counts, differences


def table(comparison, asked):
    lines = ["| field | equal | normalised | differs | rule of what is normalised |", "| --- | ---: | ---: | ---: | --- |"]
    fields = [field for field in FIELDS if field in comparison.counts]
    fields += sorted(field for field in comparison.counts if field not in FIELDS)
    for field in fields:
        counts = comparison.counts[field]
        rule = RULES.get(field, RULES["apiserver.latency.k8s.io"] if "latency" in field else "")
        shown = rule if counts[NORMALISED] else ""
        lines.append(f"| `{field}` | {counts[EQUAL]} | {counts[NORMALISED]} | {counts[DIFFERS]} | {shown} |")
    counts, differences = answers(asked)
    total = collections.Counter()
    for each in comparison.counts.values():
        total.update(each)
    lines += [
        f"| **all fields** | **{total[EQUAL]}** | **{total[NORMALISED]}** | **{total[DIFFERS]}** | |", "",
        f"{len(comparison.joined)} events joined by audit ID and stage; {len(comparison.only_ours)} only at the gateway, "
        f"{len(comparison.only_theirs)} only upstream.", "",
        f"{sum(counts.values())} questions were asked twice, directly and through the gateway: code, header and body are "
        f"the same bytes for {counts[EQUAL]}, the same but for the version of a list or compression for "
        f"{counts[NORMALISED]}, different for {counts[DIFFERS]}.", "",
        "| what differs | where | how often |", "| --- | --- | ---: |",
    ]
    for field, found in sorted(comparison.differences.items()):
        names = collections.Counter(name for name, *_ in found)
        where = ", ".join(name for name, _ in names.most_common(8)) + (", …" if len(names) > 8 else "")
        lines.append(f"| `{field}` | {where} | {len(found)} |".replace("`event", "event").replace("upstream` ", "upstream ")
                     .replace("gateway` ", "gateway "))
    if differences:
        lines.append(f"| answer | {', '.join(name for name, *_ in differences)} | {len(differences)} |")
    return "\n".join(lines) + "\n"
