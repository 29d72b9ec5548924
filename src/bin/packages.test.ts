import { spawnSync } from "node:child_process";
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterEach, beforeEach, expect, test } from "vitest";

/**
 * tools/install-packages.sh against a pretended Debian: `installed` lists what is there, and apt-get adds to it what is
 * asked for and one dependency.
 */
const script = fileURLToPath(new URL("../../tools/install-packages.sh", import.meta.url));
const needed = readFileSync(new URL("../../tools/packages.txt", import.meta.url), "utf8")
  .split("\n")
  .filter((line) => /^[a-z]/.test(line) && !/ arm64 /.test(line))
  .map((line) => line.split(" ")[0] ?? "");

let directory: string;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "strata-packages-"));
  mkdirSync(join(directory, "bin"));
  writeFileSync(join(directory, "installed"), "");
  writeFileSync(join(directory, "calls"), "");
  stub("dpkg", 'if [ "$1" = --print-architecture ]; then echo amd64; fi');
  stub(
    "dpkg-query",
    `for name; do :; done
if grep -qx -- "$name" "$FAKE/installed"; then printf installed; exit 0; fi
case $name in -*) sed 's/^/installed /' "$FAKE/installed" ;; *\\ *) sed 's/^/installed /' "$FAKE/installed" ;; *) exit 1 ;; esac`,
  );
  stub("apt-cache", 'shift; for name; do printf "%s:\\n  Candidate: 1\\n" "$name"; done');
  stub(
    "apt-get",
    `echo "$*" >>"$FAKE/calls"
[ ! -e "$FAKE/broken" ] || { echo "no space left"; exit 100; }
install=
for word; do
  case $word in
    install) install=yes; echo a-dependency >>"$FAKE/installed" ;;
    -*|*=*) ;;
    *) [ -z "$install" ] || { echo "$word" >>"$FAKE/installed"; [ ! -e "$FAKE/dies" ] || kill -9 $PPID; } ;;
  esac
done
sort -u -o "$FAKE/installed" "$FAKE/installed"`,
  );
  stub("id", 'cat "$FAKE/uid" 2>/dev/null || echo 0');
});
afterEach(() => rmSync(directory, { recursive: true }));

function stub(name: string, body: string): void {
  const path = join(directory, "bin", name);
  writeFileSync(path, `#!/bin/sh\n${body}\n`);
  chmodSync(path, 0o755);
}

function install(...names: string[]) {
  const env = {
    PATH: `${join(directory, "bin")}:/usr/bin:/bin`,
    FAKE: directory,
    STRATA_STATE_DIR: join(directory, "state"),
  };
  return spawnSync(script, names, { env, encoding: "utf8" });
}

const lines = (name: string) => readFileSync(join(directory, name), "utf8").split("\n").filter(Boolean);

test("it installs what is missing, says why, and records all that came", () => {
  writeFileSync(join(directory, "installed"), "lxc\nunrelated\n");
  const { status, stderr } = install();
  expect(status, stderr).toBe(0);
  expect(stderr).toMatch(/mmdebstrap +builds images from Debian suites/);
  expect(stderr).not.toMatch(/^ {2}lxc/m);
  const expected = [...needed.filter((name) => name !== "lxc"), "a-dependency"].sort();
  expect(lines("state/installed-packages")).toEqual(expected);
});

test("a second time it asks nothing of apt", () => {
  install();
  writeFileSync(join(directory, "calls"), "");
  const { status, stderr } = install();
  expect([status, stderr, lines("calls")]).toEqual([0, "", []]);
});

test("one that was killed in the middle is completed by the next, and nothing is missing from the record", () => {
  writeFileSync(join(directory, "installed"), "unrelated\n");
  writeFileSync(join(directory, "dies"), "");
  expect(install().status).not.toBe(0);
  expect(existsSync(join(directory, "state/installed-packages"))).toBe(false);
  rmSync(join(directory, "dies"));
  expect(install().status).toBe(0);
  expect(lines("state/installed-packages")).toEqual([...needed, "a-dependency"].sort());
});

test("without root it says what to install, in one sentence", () => {
  writeFileSync(join(directory, "uid"), "1000");
  const { status, stderr } = install("curl", "lxc");
  expect(status).toBe(1);
  expect(stderr).toBe(
    "error: these packages are missing: curl lxc; install them with: sudo apt-get install --no-install-recommends curl lxc\n",
  );
});

test("what apt said is shown when it fails", () => {
  writeFileSync(join(directory, "broken"), "");
  const { status, stderr } = install("curl");
  expect(status).toBe(1);
  expect(stderr).toContain("no space left");
  expect(stderr).toMatch(/error: apt-get cannot install: curl/);
});

test("on a system without apt-get it says so in one sentence", () => {
  rmSync(join(directory, "bin", "apt-get"));
  rmSync(join(directory, "bin", "dpkg-query"));
  for (const name of ["dirname", "cmp", "sh"]) {
    stub(name, `exec /usr/bin/${name} "$@"`);
  }
  const env = { PATH: join(directory, "bin"), STRATA_STATE_DIR: join(directory, "state") };
  const { status, stderr } = spawnSync(script, [], { env, encoding: "utf8" });
  expect(status).toBe(1);
  expect(stderr).toMatch(/^error: .* this system has no apt-get\n$/);
});
