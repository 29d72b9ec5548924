#!/bin/sh
# Installs the packages of packages.txt that are missing (or only those named as arguments) and records what came
# with them, dependencies included, in STATE/installed-packages, so that `strata uninstall` can take away exactly that.
# Repeating it is fast and changes nothing; one that was interrupted is completed by the next.
set -eu

tools=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd -P)
state=${STRATA_STATE_DIR:-${STRATA_DIR:+$STRATA_DIR/state}}
state=${state:-/var/lib/strata}
record=$state/installed-packages
before=$state/packages-before # what was there before an installation that has not ended yet
stamp=$state/packages-checked
log=$state/packages.log

fail() {
  printf 'error: %s\n' "$*" >&2
  exit 1
}

if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
  # A developer's machine without Debian's tools, or a test: doctor says what is missing.
  [ -n "${STRATA_SKIP_PACKAGES:-}" ] && exit 0
  fail "Strata installs its packages with apt-get and runs on Debian or Ubuntu; this system has no apt-get"
fi

# Nothing was installed or removed since the last time all was there.
if [ $# -eq 0 ] && [ ! -e "$before" ] && cmp -s "$tools/packages.txt" "$stamp" &&
  [ -z "$(find /var/lib/dpkg/status -newer "$stamp" 2>/dev/null)" ]; then
  exit 0
fi

installed() {
  # shellcheck disable=SC2016 # dpkg's own variables
  dpkg-query -W -f='${db:Status-Status} ${Package}\n' | sed -n 's/^installed //p' | LC_ALL=C sort -u
}

wanted() {
  awk -v arch="$(dpkg --print-architecture)" \
    '/^[a-z]/ && ($2 == "all" || $2 == arch) { print $1 }' "$tools/packages.txt" | LC_ALL=C sort -u
}

missing() {
  if [ $# -gt 0 ]; then printf '%s\n' "$@" | LC_ALL=C sort -u; else wanted; fi | while read -r name; do
    # shellcheck disable=SC2016
    status=$(dpkg-query -W -f='${db:Status-Status}' "$name" 2>/dev/null || true)
    [ "$status" = installed ] || printf '%s\n' "$name"
  done
}

apt() {
  DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1 \
    apt-get -q -y -o DPkg::Lock::Timeout=600 -o Dpkg::Use-Pty=0 "$@" </dev/null >>"$log" 2>&1 8>&-
}

# Every one of these can be installed, as far as the package lists know.
available() {
  [ "$(LC_ALL=C apt-cache policy "$@" 2>/dev/null | grep -c '^  Candidate: [^(]')" -eq $# ]
}

give_up() {
  tail -n 15 "$log" >&2
  fail "$* (all of it is in $log)"
}

# Adds what an installation brought to the record.
account() {
  installed >"$before.now"
  touch "$record"
  LC_ALL=C comm -13 "$before" "$before.now" | LC_ALL=C sort -u - "$record" >"$record.new"
  mv "$record.new" "$record"
  rm -f "$before" "$before.now"
}

names=$(missing "$@")
if [ -z "$names" ]; then
  if [ "$(id -u)" -eq 0 ] && [ $# -eq 0 ]; then
    mkdir -p "$state"
    [ ! -e "$before" ] || account
    cp "$tools/packages.txt" "$stamp"
  fi
  exit 0
fi
# shellcheck disable=SC2086 # names of packages hold no blanks
set -- $names

if [ "$(id -u)" -ne 0 ]; then
  fail "these packages are missing: $*; install them with: sudo apt-get install --no-install-recommends $*"
fi
mkdir -p "$state"
exec 8>"$state/packages-lock"
if command -v flock >/dev/null; then flock 8; fi

printf 'strata: installs from Debian:\n' >&2
for name in "$@"; do
  printf '  %-22s %s\n' "$name" "$(awk -v name="$name" \
    '$1 == name { $1 = ""; $2 = ""; sub(/^ +/, ""); print }' "$tools/packages.txt" "$tools/test-packages.txt")" >&2
done

[ -e "$before" ] || {
  installed >"$before.new"
  mv "$before.new" "$before"
}
# A package manager that was interrupted refuses to go on until this has run.
: >"$log"
dpkg --configure -a </dev/null >>"$log" 2>&1 8>&- || true
available "$@" || apt update || give_up "apt-get cannot fetch the package lists"
apt install --no-install-recommends "$@" || {
  printf 'strata: tries again with fresh package lists\n' >&2
  apt update && apt install --no-install-recommends "$@"
} || give_up "apt-get cannot install: $*"
account
printf 'strata: %s packages installed, with what they depend on\n' "$(wc -l <"$record")" >&2
