"""What is asked, from discovery to odd paths."""

import json
import time

import protobuf

NS = "/api/v1/namespaces/shop"
PB = "application/vnd.kubernetes.protobuf"
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"
PARTIAL = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io"
PARTIAL_LIST = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"
AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"

DEPLOYMENT = {
    "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "labels": {"app": "web"}},
    "spec": {"replicas": 2, "selector": {"matchLabels": {"app": "web"}}, "template": {
        "metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "nginx:1"}]}}},
}

CRD = {
    "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
    "metadata": {"name": "flunders.wardle.example.com"},
    "spec": {"group": "wardle.example.com", "scope": "Namespaced",
             "names": {"plural": "flunders", "singular": "flunder", "kind": "Flunder"},
             "versions": [
                 {"name": "v1", "served": True, "storage": True, "subresources": {"status": {}}, "schema": {
                     "openAPIV3Schema": {"type": "object", "properties": {
                         "spec": {"type": "object", "properties": {
                             "size": {"type": "number"}, "colour": {"type": "string", "default": "blue"}}},
                         "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}}}},
                 {"name": "v1beta1", "served": True, "storage": False, "deprecated": True,
                  "deprecationWarning": "flunders v1beta1 are old", "schema": {
                      "openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}}]},
}


def pod(name, **spec):
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": "x"}},
            "spec": {"containers": [{"name": "c", "image": "busybox"}], **spec}}


def text(value):
    return json.dumps(value, separators=(",", ":"))


def play(c, kubelet_port):
    prepare(c, kubelet_port)
    discovery(c)
    writes(c)
    reads(c)
    refusals(c)
    identities(c)
    certificates(c)
    encodings(c)
    pods(c)
    custom(c)
    odd(c)
    kubectl(c)
    streams(c)


def prepare(c, kubelet_port):
    c.write("create namespace", "POST", "/api/v1/namespaces",
            text({"apiVersion": "v1", "kind": "Namespace", "metadata": {
                "name": "shop", "labels": {"pod-security.kubernetes.io/warn": "restricted",
                                           "pod-security.kubernetes.io/audit": "restricted"}}}))
    rbac = "/apis/rbac.authorization.k8s.io/v1"

    def role(name, rules):
        c.write(f"create cluster role {name}", "POST", f"{rbac}/clusterroles",
                text({"metadata": {"name": name}, "rules": rules}))

    def bind(name, kind, subject, namespace=None):
        path = f"{rbac}/namespaces/{namespace}/rolebindings" if namespace else f"{rbac}/clusterrolebindings"
        c.write(f"bind {name}", "POST", path, text({
            "metadata": {"name": f"{name}-{subject}"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name},
            "subjects": [{"kind": kind, "name": subject, "apiGroup": "rbac.authorization.k8s.io"}]}))

    role("impersonator", [{"apiGroups": [""], "resources": ["users", "groups"], "verbs": ["impersonate"]},
                          {"apiGroups": ["authentication.k8s.io"], "resources": ["userextras/scopes", "uids"],
                           "verbs": ["impersonate"]}])
    role("gateway", [{"apiGroups": [""], "resources": ["users", "groups", "serviceaccounts"], "verbs": ["impersonate"]},
                     {"apiGroups": ["authentication.k8s.io"], "verbs": ["impersonate"],
                      "resources": ["uids", "userextras/authentication.kubernetes.io/credential-id"]},
                     {"apiGroups": ["authorization.k8s.io"], "resources": ["subjectaccessreviews"],
                      "verbs": ["create"]}])
    role("constrained", [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["impersonate-on:user-info:list"]},
                         {"apiGroups": ["authentication.k8s.io"], "resources": ["users", "groups"],
                          "verbs": ["impersonate:user-info"]}])
    bind("gateway", "User", "gateway")
    bind("constrained", "User", "carla")
    bind("edit", "Group", "developers", "shop")
    bind("impersonator", "User", "robot")
    c.write("create node", "POST", "/api/v1/nodes", text({"metadata": {"name": "node"}}))
    c.write("node status", "PATCH", "/api/v1/nodes/node/status", text({"status": {
        "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": kubelet_port}}}}),
        headers={"Content-Type": "application/merge-patch+json"})
    time.sleep(1)


def discovery(c):
    for path in ["/api", "/apis", "/api/v1", "/apis/apps", "/apis/apps/v1", "/version", "/healthz", "/readyz?verbose",
                 "/livez/ping", "/openapi/v2", "/openapi/v3", "/metrics", "/", "/.well-known/openid-configuration"]:
        # Counters move between two answers.
        ask = c.read if path not in ("/metrics", "/readyz?verbose") else lambda name, path: c.write(name, "GET", path)
        ask(f"discovery {path}", path)
    for path in ["/api", "/apis"]:
        c.read(f"aggregated discovery {path}", path, headers={"Accept": AGGREGATED})
        c.read(f"discovery as anonymous {path}", path, token=None)
    c.read("version as anonymous", "/version", token=None)
    c.read("openid keys", "/openid/v1/jwks", headers={"Accept": "*/*"})


def writes(c):
    maps = f"{NS}/configmaps"
    plain = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"k": "<v> & \u2028 \u00e9"}}
    c.write("create", "POST", maps, text(plain))
    c.write("create pretty", "POST", f"{maps}?pretty=true", json.dumps({**plain, "metadata": {"name": "b"}}, indent=2))
    c.write("create without type", "POST", maps, text({"metadata": {"name": "c"}, "data": {"k": "v"}}))
    c.write("create with unknown field", "POST", maps, text({**plain, "metadata": {"name": "d"}, "nope": 1}))
    c.write("create with strict validation", "POST", f"{maps}?fieldValidation=Strict",
            text({**plain, "metadata": {"name": "e"}, "nope": 1}))
    c.write("create with generateName", "POST", maps, text({**plain, "metadata": {"generateName": "gen-"}}))
    c.write("create dry-run", "POST", f"{maps}?dryRun=All", text({**plain, "metadata": {"name": "dry"}}))
    c.write("create as YAML", "POST", maps, "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: yaml\ndata: {n: \"1\"}\n",
            headers={"Content-Type": "application/yaml"})
    c.write("create with a namespace", "POST", maps,
            text({**plain, "metadata": {"name": "ns", "namespace": "shop", "uid": ""}}))
    c.write("create in another namespace", "POST", maps,
            text({**plain, "metadata": {"name": "ns", "namespace": "other"}}))
    c.write("update", "PUT", f"{maps}/a", text({**plain, "data": {"k": "2"}}))
    c.write("update without name", "PUT", f"{maps}/a", text({**plain, "metadata": {}}))
    c.write("update with another name", "PUT", f"{maps}/a", text({**plain, "metadata": {"name": "z"}}))
    c.write("update with old version", "PUT", f"{maps}/a",
            text({**plain, "metadata": {"name": "a", "resourceVersion": "1"}}))
    for kind, body in [
        ("json-patch", '[{"op":"add","path":"/data/x","value":"1"}]'), ("merge-patch", '{"data":{ "y": "2"}}'),
        ("strategic-merge-patch", '{"metadata":{"labels":{"l":"1"}}}\n'),
    ]:
        c.write(f"patch {kind}", "PATCH", f"{maps}/a", body, headers={"Content-Type": f"application/{kind}+json"})
    c.write("patch broken", "PATCH", f"{maps}/a", '{"data":', headers={"Content-Type": "application/merge-patch+json"})
    c.write("patch with unknown type", "PATCH", f"{maps}/a", "{}", headers={"Content-Type": "application/json"})
    apply = {"Content-Type": "application/apply-patch+yaml"}
    c.write("apply JSON", "PATCH", f"{maps}/applied?fieldManager=me", text({**plain, "metadata": {"name": "applied"}}),
            headers=apply)
    c.write("apply YAML", "PATCH", f"{maps}/applied?fieldManager=me&force=true",
            "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: applied\n", headers=apply)
    c.write("apply conflict", "PATCH", f"{maps}/a?fieldManager=you", text({**plain, "data": {"x": "9"}}), headers=apply)
    apps = "/apis/apps/v1/namespaces/shop/deployments"
    c.write("create deployment", "POST", apps, text(DEPLOYMENT))
    c.write("update scale", "PUT", f"{apps}/web/scale", text({
        "apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "web", "namespace": "shop"},
        "spec": {"replicas": 3}}))
    c.write("patch scale", "PATCH", f"{apps}/web/scale", '{"spec":{"replicas":1}}',
            headers={"Content-Type": "application/merge-patch+json"})
    c.write("patch status", "PATCH", f"{apps}/web/status", '{"status":{"replicas":1}}',
            headers={"Content-Type": "application/merge-patch+json"})
    c.write("create job", "POST", "/apis/batch/v1/namespaces/shop/jobs", text({
        "metadata": {"name": "j"}, "spec": {"template": {"spec": {
            "restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}}}))
    secrets = f"{NS}/secrets"
    c.write("create secret", "POST", secrets, text({"metadata": {"name": "s"}, "stringData": {"password": "hunter2"}}))
    c.write("patch secret", "PATCH", f"{secrets}/s", '{"stringData":{"password":"x"}}',
            headers={"Content-Type": "application/merge-patch+json"})
    for number in range(120):
        if number == 0 or number % 40 == 0:
            c.write("create filler", "POST", maps, text({"metadata": {"name": f"fill-{number}", "labels": {"f": "1"}},
                                                          "data": {"k": "x" * 60_000}}))
    for name, verb, path, body in [
        ("delete", "DELETE", f"{maps}/b", None), ("delete again", "DELETE", f"{maps}/b", None),
        ("delete with options", "DELETE", f"{maps}/c",
         '{"kind":"DeleteOptions","apiVersion":"v1","gracePeriodSeconds":0,"propagationPolicy":"Background"}'),
        ("delete with bare options", "DELETE", f"{maps}/ns", '{"propagationPolicy":"Orphan"}'),
        ("delete with query", "DELETE", f"{maps}/yaml?propagationPolicy=Foreground", None),
        ("delete dry-run", "DELETE", f"{maps}/a?dryRun=All", None),
        ("delete with precondition", "DELETE", f"{maps}/a", '{"preconditions":{"uid":"not-this"}}'),
        ("delete deployment", "DELETE", f"{apps}/web", '{"propagationPolicy":"Foreground"}'),
        ("delete collection", "DELETE", f"{maps}?labelSelector=f%3D2", None),
        ("delete collection with options", "DELETE", f"{maps}?labelSelector=l%3D9", '{"gracePeriodSeconds":1}'),
    ]:
        c.write(name, verb, path, body)


def reads(c):
    maps = f"{NS}/configmaps"
    for name, path, headers in [
        ("get", f"{maps}/a", None), ("get pretty", f"{maps}/a?pretty=true", None),
        ("get as browser", f"{maps}/a", {"User-Agent": "Mozilla/5.0", "Accept": "*/*"}),
        ("get as curl", f"{maps}/a", {"User-Agent": "curl/8", "Accept": "*/*"}),
        ("get YAML", f"{maps}/a", {"Accept": "application/yaml"}),
        ("get table", f"{maps}/a", {"Accept": TABLE}), ("list table", maps, {"Accept": TABLE}),
        ("list table with objects", f"{maps}?includeObject=Object&limit=2", {"Accept": TABLE}),
        ("get partial", f"{maps}/a", {"Accept": PARTIAL}), ("list partial", maps, {"Accept": PARTIAL_LIST}),
        ("list with limit", f"{maps}?limit=2", None), ("list by field", f"{maps}?fieldSelector=metadata.name%3Da", None),
        ("list by label", f"{maps}?labelSelector=l%3D1", None), ("list everywhere", "/api/v1/configmaps?limit=3", None),
        ("list gzip", maps, {"Accept-Encoding": "gzip"}), ("list small gzip", f"{maps}?limit=1", {"Accept-Encoding": "gzip"}),
        ("list secrets", f"{NS}/secrets", None), ("get secret", f"{NS}/secrets/s", None),
        ("get deployment gone", "/apis/apps/v1/namespaces/shop/deployments/none", None),
        ("list deployments", "/apis/apps/v1/deployments", None), ("list jobs", "/apis/batch/v1/jobs", None),
        ("deprecated endpoints", f"{NS}/endpoints", None), ("deprecated component status", "/api/v1/componentstatuses", None),
        ("if-none-match", "/openapi/v3", {"If-None-Match": "x"}),
    ]:
        c.read(name, path, headers=headers)
    page = c.read("first page", f"{maps}?limit=1")
    token = json.loads(page.body)["metadata"].get("continue", "")
    c.write("next page", "GET", f"{maps}?limit=1&continue={token}")
    c.read("as alice", maps, token="alice-token")
    c.http2("HTTP/2 get", f"{maps}/a")
    c.http2("HTTP/2 list", maps)
    c.http2("HTTP/2 refused", f"{maps}/a", token="mallory-token")


def refusals(c):
    maps = f"{NS}/configmaps"
    for name, path, token, headers in [
        ("no token", maps, None, None), ("wrong token", maps, "nope", None),
        ("basic", maps, None, {"Authorization": "Basic YTpi"}), ("empty bearer", maps, None, {"Authorization": "Bearer "}),
        ("blank before the token", maps, None, {"Authorization": "Bearer  admin-token"}),
        ("wrong token for health", "/healthz", "nope", None), ("wrong token, odd accept", maps, "nope", {"Accept": "x/y"}),
        ("forbidden", maps, "mallory-token", None), ("forbidden name", f"{maps}/a", "mallory-token", None),
        ("forbidden subresource", f"{NS}/pods/p/log", "mallory-token", None),
        ("forbidden path", "/metrics", "mallory-token", None),
        ("forbidden elsewhere", "/apis/apps/v1/namespaces/kube-system/deployments", "alice-token", None),
        ("not found", f"{maps}/none", "admin-token", None), ("no such resource", f"{NS}/widgets", "admin-token", None),
        ("no such group", "/apis/nope.example/v1/things", "admin-token", None), ("no such path", "/nope", "admin-token", None),
        ("no such version", "/apis/apps/v9/deployments", "admin-token", None),
        ("not acceptable", maps, "admin-token", {"Accept": "text/csv"}),
        ("invalid timeout", f"{maps}?timeout=abc", "admin-token", None), ("timeout", f"{maps}?timeout=20s", "admin-token", None),
        ("invalid limit", f"{maps}?limit=abc", "admin-token", None),
        ("invalid selector", f"{maps}?labelSelector=%21%21", "admin-token", None),
        ("invalid continue", f"{maps}?continue=abc", "admin-token", None),
        ("invalid version", f"{maps}?resourceVersion=abc", "admin-token", None),
    ]:
        c.read(name, path, token=token, headers=headers)
    c.read("wrong method", "/api/v1/namespaces", method="PUT", headers={"Content-Type": "application/json"}, body="{}")
    for name, body, headers in [
        ("already exists", text({"metadata": {"name": "a"}}), None), ("invalid name", text({"metadata": {"name": "A_"}}), None),
        ("broken JSON", "{", None), ("empty body", "", None), ("wrong kind", text({"apiVersion": "v1", "kind": "Pod",
                                                                               "metadata": {"name": "x"}}), None),
        ("wrong version", text({"apiVersion": "v9", "kind": "ConfigMap", "metadata": {"name": "x"}}), None),
        ("unsupported media type", "x", {"Content-Type": "text/csv"}), ("wrong field type", '{"data":[1]}', None),
        ("too large", text({"metadata": {"name": "big"}, "data": {"k": "x" * 1_100_000}}), None),
        ("far too large", text({"metadata": {"name": "big"}, "data": {"k": "x" * 3_300_000}}), None),
    ]:
        c.write(name, "POST", maps, body, headers=headers)
    c.write("invalid pod", "POST", f"{NS}/pods", text({"metadata": {"name": "p"}, "spec": {"containers": []}}))
    c.write("forbidden create", "POST", maps, text({"metadata": {"name": "m"}}), token="mallory-token")
    c.write("forbidden delete", "DELETE", f"{maps}/a", '{"gracePeriodSeconds":0}', token="mallory-token")
    c.write("unauthenticated create", "POST", maps, text({"metadata": {"name": "m"}}), token="nope")
    c.write("anonymous create", "POST", maps, text({"metadata": {"name": "m"}}), token=None)
    c.write("post to an object", "POST", f"{maps}/a", text({"metadata": {"name": "a"}}))


def identities(c):
    maps = f"{NS}/configmaps"
    for name, token, headers in [
        ("impersonate user", "robot", {"Impersonate-User": "alice", "Impersonate-Group": "developers"}),
        ("impersonate user alone", "robot", {"Impersonate-User": "alice"}),
        ("impersonate refused", "mallory", {"Impersonate-User": "alice"}),
        ("impersonate group alone", "robot", {"Impersonate-Group": "developers"}),
        ("impersonate uid", "robot", {"Impersonate-User": "alice", "Impersonate-Uid": "7", "Impersonate-Group": "developers"}),
        ("impersonate extra", "robot", {"Impersonate-User": "alice", "Impersonate-Extra-scopes": "view",
                                        "Impersonate-Group": "developers"}),
        ("impersonate extra refused", "robot", {"Impersonate-User": "alice", "Impersonate-Extra-other": "x"}),
        ("impersonate service account", "admin", {"Impersonate-User": "system:serviceaccount:shop:default"}),
        ("impersonate as admin", "admin", {"Impersonate-User": "alice", "Impersonate-Group": "developers"}),
        ("impersonate anonymous", "admin", {"Impersonate-User": "system:anonymous"}),
        ("impersonate without token", None, {"Impersonate-User": "alice"}),
        ("remote user without certificate", "alice", {"X-Remote-User": "admin", "X-Remote-Group": "system:masters"}),
    ]:
        token = {"robot": "impersonator-token", None: None}.get(token, f"{token}-token")
        c.read(name, maps + "?limit=1", token=token, headers=headers)
    c.write("create service account", "POST", f"{NS}/serviceaccounts", text({"metadata": {"name": "default"}}))
    answer = c.write("token request", "POST", f"{NS}/serviceaccounts/default/token", text({
        "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 3600}}))
    token = json.loads(answer.body).get("status", {}).get("token", "")
    c.read("as service account, refused", maps, token=token)
    c.read("as service account, discovery", "/api", token=token)
    auth = "/apis/authentication.k8s.io/v1"
    c.write("token review", "POST", f"{auth}/tokenreviews", text({"spec": {"token": "alice-token"}}))
    c.write("self subject review", "POST", f"{auth}/selfsubjectreviews", "{}", token="alice-token")
    authz = "/apis/authorization.k8s.io/v1"
    attributes = {"resourceAttributes": {"namespace": "shop", "verb": "get", "resource": "pods"}}
    c.write("self access review", "POST", f"{authz}/selfsubjectaccessreviews", text({"spec": attributes}), token="alice-token")
    c.write("access review", "POST", f"{authz}/subjectaccessreviews", text({"spec": {**attributes, "user": "mallory"}}))
    c.write("rules review", "POST", f"{authz}/selfsubjectrulesreviews", text({"spec": {"namespace": "shop"}}),
            token="alice-token")
    for name, audit_id in [("chosen audit id", "my own id/1"), ("chosen audit id again", "my own id/1"),
                           ("long audit id", "i" * 300)]:
        c.write(name, "GET", f"{maps}/a", audit_id=audit_id)
    c.read("long user agent", f"{maps}/a", headers={"User-Agent": "u" * 1500})
    c.read("forwarded for", f"{maps}/a", headers={"X-Forwarded-For": "192.0.2.7, 10.1.1.1", "X-Real-Ip": "192.0.2.9"})


def certificates(c):
    """Users whom a certificate names: the gateway impersonates them."""
    maps = f"{NS}/configmaps"
    c.read("certificate: list", maps, user="carla")
    c.read("certificate: get", f"{maps}/a", user="carla")
    c.read("certificate: path", "/version", user="carla")
    c.read("certificate: who", "/apis/authentication.k8s.io/v1/selfsubjectreviews", method="POST", user="carla",
           headers={"Content-Type": "application/json"}, body="{}")
    c.read("certificate: forbidden", "/api/v1/secrets", user="carla")
    c.read("certificate: forbidden path", "/logs", user="mallory")
    c.read("certificate: not found", f"{maps}/none", user="carla")
    made = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "certified"}}
    c.write("certificate: create", "POST", maps, text(made), user="carla")
    c.write("certificate: delete", "DELETE", f"{maps}/certified", user="carla")
    c.read("certificate: impersonates", maps, user="robot", headers={"Impersonate-User": "alice"})
    c.read("certificate: impersonates with group", maps, user="robot",
           headers={"Impersonate-User": "alice", "Impersonate-Group": "developers"})
    c.read("certificate: impersonates by constrained verbs", maps, user="carla",
           headers={"Impersonate-User": "alice", "Impersonate-Group": "developers"})
    c.read("certificate: may not impersonate", maps, user="mallory", headers={"Impersonate-User": "alice"})
    c.read("certificate: impersonates nobody", maps, user="robot", headers={"Impersonate-Group": "developers"})


def encodings(c):
    maps = f"{NS}/configmaps"
    json_or_pb = f"{PB},application/json"
    for name, path, accept in [
        ("get protobuf", f"{maps}/a", PB), ("list protobuf", f"{maps}?limit=2", json_or_pb),
        ("not found protobuf", f"{maps}/none", PB), ("custom protobuf", "/apis/apps/v1/deployments", PB),
        ("get CBOR", f"{maps}/a", "application/cbor"), ("get CBOR or JSON", f"{maps}/a", "application/cbor,application/json"),
        ("discovery protobuf", "/api/v1", PB),
    ]:
        c.read(name, path, headers={"Accept": accept})
    c.read("forbidden protobuf", maps, token="mallory-token", headers={"Accept": PB})
    c.read("unauthenticated protobuf", maps, token="nope", headers={"Accept": PB})
    c.read("list protobuf gzip", maps, headers={"Accept": PB, "Accept-Encoding": "gzip"})
    pb = {"Content-Type": PB, "Accept": json_or_pb}
    c.write("create protobuf", "POST", maps, protobuf.config_map("pb", "", {"k": "v"}), headers=pb)
    c.write("create protobuf, JSON answer", "POST", maps, protobuf.config_map("pb2", "shop", {"k": "v"}),
            headers={"Content-Type": PB})
    c.write("create protobuf twice", "POST", maps, protobuf.config_map("pb", "", {"k": "v"}), headers=pb)
    c.write("create namespace protobuf", "POST", "/api/v1/namespaces", protobuf.namespace("pb"), headers=pb)
    c.write("update protobuf", "PUT", f"{maps}/pb", protobuf.config_map("pb", "shop", {"k": "w"}), headers=pb)
    c.write("delete with protobuf options", "DELETE", f"{maps}/pb", protobuf.delete_options(0, "Background"), headers=pb)
    c.write("broken protobuf", "POST", maps, b"k8s\0\x0a\xff", headers=pb)
    c.write("create CBOR", "POST", maps, b"\xd9\xd9\xf7\xa1\x48metadata\xa1\x44name\x44cbor",
            headers={"Content-Type": "application/cbor"})


def pods(c):
    path = f"{NS}/pods"
    for name, spec in [("p", {"nodeName": "node"}), ("refused", {"nodeName": "node"}), ("pending", {}),
                       ("evicted", {"nodeName": "node"}),
                       ("privileged", {"containers": [{"name": "c", "image": "i", "securityContext": {"privileged": True}}]})]:
        c.write(f"create pod {name}", "POST", path, text(pod(name, **spec)))
    for name in ["p", "refused", "evicted"]:
        c.write("pod status", "PATCH", f"{path}/{name}/status", text({"status": {
            "phase": "Running", "conditions": [{"type": "Ready", "status": "True"}],
            "containerStatuses": [{"name": "c", "ready": True, "restartCount": 0, "image": "i", "imageID": "",
                                   "state": {"running": {}}}]}}),
            headers={"Content-Type": "application/strategic-merge-patch+json"})
    c.read("log", f"{path}/p/log?container=c", headers={"Accept": "*/*"})
    c.read("log of pending", f"{path}/pending/log", headers={"Accept": "*/*"})
    c.read("log refused by kubelet", f"{path}/refused/log", headers={"Accept": "*/*"})
    exec_query = "exec?command=sh&command=-c&command=echo%20hi&container=c&stdout=true"
    c.session("exec SPDY", "POST", f"{path}/p/{exec_query}", "SPDY/3.1")
    c.session("exec WebSocket", "GET", f"{path}/p/{exec_query}", "websocket", subprotocol="v5.channel.k8s.io")
    c.session("attach SPDY", "POST", f"{path}/p/attach?container=c&stdout=true", "SPDY/3.1")
    c.session("port-forward SPDY", "POST", f"{path}/p/portforward?ports=80", "SPDY/3.1", subprotocol="portforward.k8s.io")
    c.session("exec refused by kubelet", "POST", f"{path}/refused/{exec_query}", "SPDY/3.1")
    c.session("exec forbidden", "POST", f"{path}/p/{exec_query}", "SPDY/3.1", token="mallory-token")
    c.session("exec in nothing", "POST", f"{path}/none/{exec_query}", "SPDY/3.1")
    c.write("exec without upgrade", "POST", f"{path}/p/{exec_query}")
    c.read("pod proxy", f"{path}/p/proxy/", headers={"Accept": "*/*"})
    c.write("evict", "POST", f"{path}/evicted/eviction", text({
        "apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "evicted", "namespace": "shop"}}))
    c.write("bind", "POST", f"{path}/pending/binding", text({
        "metadata": {"name": "pending"}, "target": {"kind": "Node", "name": "node"}}))
    c.write("ephemeral containers", "PATCH", f"{path}/p/ephemeralcontainers", text({"spec": {"ephemeralContainers": [
        {"name": "e", "image": "i"}]}}), headers={"Content-Type": "application/strategic-merge-patch+json"})
    c.read("list pods table", path, headers={"Accept": TABLE})
    c.read("list pods protobuf", path, headers={"Accept": PB})
    c.write("delete pod", "DELETE", f"{path}/p", '{"gracePeriodSeconds":0}')


def custom(c):
    c.write("create definition", "POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", text(CRD))
    path = "/apis/wardle.example.com/v1/namespaces/shop/flunders"
    for _ in range(100):
        if c.once(c.direct, "wait for definition", "GET", path, "admin-token", None, None).code == 200:
            break
        time.sleep(0.1)
    body = {"apiVersion": "wardle.example.com/v1", "kind": "Flunder", "metadata": {"name": "f"}, "spec": {"size": 2.5}}
    c.write("create custom", "POST", path, text(body))
    c.write("create custom, old version", "POST", path.replace("/v1/", "/v1beta1/"),
            text({**body, "apiVersion": "wardle.example.com/v1beta1", "metadata": {"name": "old"}}))
    c.write("custom numbers", "POST", path,
            '{"apiVersion":"wardle.example.com/v1","kind":"Flunder","metadata":{"name":"n"},"spec":{"size":1.0,"x":1E+2}}')
    c.read("get custom", f"{path}/f")
    c.read("list custom", path)
    c.read("list custom table", path, headers={"Accept": TABLE})
    c.read("list custom, old version", path.replace("/v1/", "/v1beta1/"))
    c.write("patch custom status", "PATCH", f"{path}/f/status", '{"status":{"a":1.50}}',
            headers={"Content-Type": "application/merge-patch+json"})
    c.write("apply custom", "PATCH", f"{path}/f?fieldManager=m&force=true", text(body),
            headers={"Content-Type": "application/apply-patch+yaml"})
    c.write("delete custom", "DELETE", f"{path}/f")
    c.write("delete all custom", "DELETE", path)


def odd(c):
    for path in ["//api/v1/pods", "/api/v1//pods", "/api/v1/pods/", "/api/v1/namespaces/shop/status",
                 "/api/v1/namespaces/shop/finalize", "/api/v1/watch/nodes/none/x", "/api/v1/namespaces/sho%70/configmaps/a",
                 "/api/v1/namespaces/shop/configmaps/a%2Fb", "/api/v1/pods?limit=1&a;b=c", "/api/v1/pods?limit=1&x=%zz",
                 "/api/v1/pods?limit=1&q=%22%3C%3E", "/api/v1/pods?watch=0&limit=1", "/healthz?", "/healthz/nope",
                 "/apis/", "/api/", "/api/v2", "/;x=1", "/api/v1/namespaces/shop/../kube-system/configmaps",
                 "/api/v1/%6eamespaces", "/debug/pprof/nope", "/api/v1/namespaces/shop/pods/p/nope",
                 "/apis/apps/v1/namespaces/shop/deployments/web/scale/x"]:
        c.read(f"path {path}", path)
    c.read("HEAD", f"{NS}/configmaps/a", method="HEAD")
    c.read("HEAD not found", f"{NS}/configmaps/none", method="HEAD")
    c.read("HEAD health", "/healthz", method="HEAD")
    c.read("OPTIONS", f"{NS}/configmaps", method="OPTIONS")
    c.read("TRACE", "/api/v1/pods", method="TRACE")
    c.read("unknown method", "/api/v1/pods", method="FROB")
    c.read("GET with a body", f"{NS}/configmaps/a", headers={"Content-Type": "application/json"}, body="{}")


def kubectl(c):
    k = c.kubectl
    k("create", "namespace", "kubectl")
    k("apply", "--server-side", "-f", "-", "-n", "kubectl", stdin=text(DEPLOYMENT))
    k("apply", "-f", "-", "-n", "kubectl", stdin=text({**DEPLOYMENT, "metadata": {"name": "client"}}))
    k("scale", "deployment/web", "--replicas=3", "-n", "kubectl")
    k("label", "deployment/web", "x=y", "-n", "kubectl")
    k("annotate", "deployment/web", "x=y", "-n", "kubectl")
    k("set", "image", "deployment/web", "c=nginx:2", "-n", "kubectl")
    k("rollout", "restart", "deployment/web", "-n", "kubectl")
    for kind in ["deployments", "pods", "nodes", "all", "configmaps"]:
        k("get", kind, "-n", "kubectl")
    k("get", "pods", "-A", "-o", "wide")
    k("get", "deployment", "web", "-n", "kubectl", "-o", "yaml")
    k("describe", "deployment", "web", "-n", "kubectl")
    k("get", "pods", "-n", "shop", token="mallory-token")
    k("auth", "can-i", "list", "pods", token="alice-token", *["-n", "shop"])
    k("auth", "whoami", token="alice-token")
    k("--as=alice", "--as-group=developers", "get", "pods", "-n", "shop")
    k("create", "token", "default", "-n", "shop")
    k("api-resources")
    k("explain", "pods")
    k("logs", "refused", "-n", "shop")
    k("exec", "refused", "-n", "shop", "--", "true")
    k("cordon", "node")
    k("taint", "node", "node", "a=b:NoSchedule")
    k("create", "secret", "generic", "k", "--from-literal=a=b", "-n", "kubectl")
    k("replace", "-f", "-", "-n", "kubectl", stdin=text({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "no"}}))
    k("delete", "deployment", "web", "client", "-n", "kubectl", "--wait=false")
    k("delete", "namespace", "kubectl", "--wait=false")


def streams(c):
    maps = f"{NS}/configmaps"
    c.watch("watch", f"{maps}?watch=true")
    c.watch("watch old path", "/api/v1/watch/namespaces/shop/configmaps")
    c.watch("watch one", f"{maps}?watch=1&fieldSelector=metadata.name%3Da")
    c.write("watch that ends", "GET", f"{maps}?watch=true&timeoutSeconds=1")
    c.write("watch from the past", "GET", f"{maps}?watch=true&resourceVersion=1&timeoutSeconds=1")
    c.write("watch protobuf", "GET", f"{maps}?watch=true&timeoutSeconds=1", headers={"Accept": f"{PB};stream=watch"})
    c.write("watch refused", "GET", f"{maps}?watch=true", token="mallory-token")
    c.write("watch table", "GET", f"{maps}?watch=true&timeoutSeconds=1", headers={"Accept": TABLE})
