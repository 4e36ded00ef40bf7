#!/bin/sh
# Builds the oracle of the differential run: a real kube-apiserver and an etcd, from their Go modules.
#
#   interop/differential/build.sh [DIRECTORY]
#
# DIRECTORY (default: target/oracle of the project) receives `kube-apiserver` and `etcd`; nothing there is
# ever committed. Needs Go 1.26 or newer, about 6 GB of disk for the caches and half an hour on two
# idle cores. KUBERNETES and ETCD choose other versions; P the number of compilers at once.
set -eu

KUBERNETES=${KUBERNETES:-1.36.3}
ETCD=${ETCD:-3.6.5}
P=${P:-1}
here=$(cd "$(dirname "$0")" && pwd)
out=${1:-$here/../../target/oracle}
mkdir -p "$out"
out=$(cd "$out" && pwd)

export CGO_ENABLED=0 GOFLAGS="-buildvcs=false -trimpath"
minor=${KUBERNETES#*.}
minor=${minor%%.*}

if [ ! -x "$out/etcd" ]; then
  mkdir -p "$out/src-etcd"
  cd "$out/src-etcd"
  [ -f go.mod ] || go mod init oracle.invalid/etcd
  go get -tool "go.etcd.io/etcd/server/v3@v$ETCD"
  nice -n 19 go build -p "$P" -ldflags "-s -w" -o "$out/etcd" go.etcd.io/etcd/server/v3
fi

if [ ! -x "$out/kube-apiserver" ]; then
  mkdir -p "$out/src-kubernetes"
  cd "$out/src-kubernetes"
  [ -f go.mod ] || go mod init oracle.invalid/kubernetes
  # The module asks for its staging modules at v0.0.0; the release tags them v0.MINOR.PATCH.
  go mod download -json "k8s.io/kubernetes@v$KUBERNETES" >module.json
  gomod=$(sed -n 's/^.*"GoMod": "\(.*\)",*$/\1/p' module.json)
  awk '$1 ~ /^k8s.io\// && $2 == "v0.0.0" { print $1 }' "$gomod" | sort -u | while read -r module; do
    go mod edit -replace "$module=$module@v0.${KUBERNETES#1.}"
  done
  go get -tool "k8s.io/kubernetes/cmd/kube-apiserver@v$KUBERNETES"
  # Without these the server calls itself v0.0.0-master.
  version=k8s.io/component-base/version
  nice -n 19 go build -p "$P" -o "$out/kube-apiserver" \
    -ldflags "-s -w -X $version.gitVersion=v$KUBERNETES -X $version.gitMajor=1 -X $version.gitMinor=$minor" \
    k8s.io/kubernetes/cmd/kube-apiserver
fi

"$out/etcd" --version | head -n 1
"$out/kube-apiserver" --version
