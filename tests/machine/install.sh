#!/bin/sh
# What tests/machine needs, on Debian: packages, and the newest kernel of this release with the means to build a module
# for it, unpacked in a cache folder: $MACHINE_CACHE, or ~/.cache/otel-hostmetrics-machine. As root. Does nothing twice.
set -eu
here=$(dirname "$(readlink -f "$0")")
cache=${MACHINE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/otel-hostmetrics-machine}
packages="qemu-system-x86 busybox-static kmod procps iproute2 bpftool gcc make libc6-dev libelf1
  rdma-core rdmacm-utils ibverbs-utils ibverbs-providers perftest ibsim-utils libumad2sim0 opensm infiniband-diags"
mkdir -p "$cache"

say() { echo "machine: $*"; }
quiet() { "$@" >"$cache/install.log" 2>&1 || { tail -n 20 "$cache/install.log" >&2; say "failed: $*"; exit 1; }; }
# linux-image-amd64 is the full kernel: the -cloud- flavour has neither soft-RoCE nor 9p
newest() { apt-cache depends linux-image-amd64 2>/dev/null | sed -n 's/^ *Depends: linux-image-//p'; }

missing=
for package in $packages; do
  [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing="$missing $package"
done
# Lists that are out of date name files that are gone
[ -z "$missing" ] && [ -e "$cache/$(newest)/complete" ] || quiet apt-get update
if [ -n "$missing" ]; then
  say "installs$missing"
  DEBIAN_FRONTEND=noninteractive quiet apt-get install --yes --no-install-recommends $missing
fi

release=$(newest)
[ -n "$release" ] || { say "apt knows no linux-image-amd64"; exit 1; }
tree=$cache/$release
if [ ! -e "$tree/complete" ]; then
  say "unpacks Linux $release in $tree"
  rm -rf "$tree"
  mkdir -p "$tree/packages"
  kbuild=$(apt-cache depends "linux-headers-$release" | sed -n 's/^ *Depends: \(linux-kbuild-.*\)/\1/p')
  (cd "$tree/packages" && quiet apt-get download "linux-image-$release" "linux-headers-$release" "linux-headers-${release%-*}-common" "$kbuild")
  for package in "$tree"/packages/*.deb; do dpkg-deb -x "$package" "$tree"; done
  rm -r "$tree/packages"
  sed -i "s|/usr/src|$tree/usr/src|" "$tree/usr/src/linux-headers-$release/Makefile"
  depmod -b "$tree" "$release"
  touch "$tree/complete"
fi

module=$tree/fakeib
if [ ! -e "$module/fakeib.ko" ] || ! cmp -s "$here/fakeib/fakeib.c" "$module/fakeib.c"; then
  say "builds fakeib.ko"
  rm -rf "$module"
  mkdir "$module"
  cp "$here/fakeib/fakeib.c" "$here/fakeib/Makefile" "$module"
  quiet make -C "$tree/usr/src/linux-headers-$release" M="$module" modules
fi
ln -sfn "$release" "$cache/current"
say "Linux $release in $cache"
