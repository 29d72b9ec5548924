import { linkSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, utimesSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { entryPaths } from "./entry-files.ts";
import { capabilitiesOf, scanTreeInThread, toManifest } from "./manifest.ts";
import { compareVersions, inspectTree, prettyName } from "./tree-inspection.ts";
import { findFile, readStart } from "./tree-paths.ts";
import { scanTree } from "./tree-scan.ts";
import { noteVerifiedTree, verifyFile, verifyTree } from "./verification.ts";

let root: string;
const signal = new AbortController().signal;
const idBase = process.getuid?.() ?? 0;

beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), "strata-tree-"));
});
afterEach(() => rmSync(root, { recursive: true, force: true }));

function write(path: string, content = ""): void {
  mkdirSync(dirname(join(root, path)), { recursive: true });
  writeFileSync(join(root, path), content);
}

describe("the manifest", () => {
  const digest = () => toManifest(scanTree({ root, idBase, content: true }).entries, new Map()).digest;

  it("lists what a guest can tell apart, and nothing else", () => {
    write("b/file", "hello");
    linkSync(join(root, "b/file"), join(root, "a"));
    symlinkSync("/etc/x", join(root, "link"));
    const scan = scanTree({ root, idBase, content: true });
    expect(scan).toMatchObject({ entryCount: 5, sizeBytes: 5 });
    expect(scan.entries.map(({ path, type, target }) => [path, type, target])).toEqual([
      ["", "directory", undefined],
      ["a", "file", undefined],
      ["b", "directory", undefined],
      ["b/file", "file", undefined],
      ["link", "symlink", "/etc/x"],
    ]);
    expect(scan.entries[1]).toMatchObject({
      uid: 0,
      sizeBytes: 5,
      sha256: "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824",
    });
    expect(scan.entries[3]?.sha256).toBe(scan.entries[1]?.sha256);
  });

  it("does not depend on times, and does on content, names and targets", () => {
    write("f", "one");
    const first = digest();
    utimesSync(join(root, "f"), 1, 1);
    expect(digest()).toBe(first);
    write("f", "two");
    const second = digest();
    expect(second).not.toBe(first);
    symlinkSync("x", join(root, "l"));
    expect(digest()).not.toBe(second);
  });

  it("holds file capabilities, which can be read back", () => {
    write("bin/ping");
    const { entries } = scanTree({ root, idBase, content: true });
    const capabilities = new Map([["bin/ping", "0100000200200000"]]);
    const manifest = toManifest(entries, capabilities);
    expect(manifest.digest).not.toBe(toManifest(entries, new Map()).digest);
    expect(capabilitiesOf(manifest.text)).toEqual(capabilities);
    expect(JSON.parse(manifest.text)).toHaveLength(3);
  });

  it("has a quick fingerprint that any change changes, with times set back too", () => {
    write("f", "one");
    const fingerprint = () => scanTree({ root, idBase, content: false }).fingerprint;
    const before = fingerprint();
    expect(fingerprint()).toBe(before);
    expect(scanTree({ root, idBase, content: true }).fingerprint).toBe(before);
    write("f", "two");
    utimesSync(join(root, "f"), 1, 1);
    const after = fingerprint();
    expect(after).not.toBe(before);
  });

  it("is read on a thread of its own, which can be stopped", async () => {
    write("f", "one");
    const scan = await scanTreeInThread({ root, idBase, content: true }, signal);
    expect(scan.entries).toHaveLength(2);
    const aborted = AbortSignal.abort(new Error("stop"));
    await expect(scanTreeInThread({ root, idBase, content: true }, aborted)).rejects.toThrow("stop");
    await expect(
      scanTreeInThread({ root: join(root, "no"), idBase, content: true }, signal),
    ).rejects.toMatchObject({
      code: "Internal",
    });
  });
});

describe("verification", () => {
  it("accepts what is unchanged, and refuses a changed file for good", async () => {
    const paths = entryPaths(root);
    write("root/tree/f", "one");
    const { entries, fingerprint } = scanTree({ root: paths.tree, idBase, content: true });
    const manifest = toManifest(entries, new Map());
    write("manifest.json", manifest.text);
    const verify = () => verifyTree(paths, manifest.digest, idBase, signal);
    await verify(); // without a note: reads everything
    await verify(); // with one
    await noteVerifiedTree(paths, fingerprint);
    await verify();
    write("root/tree/f", "two");
    await expect(verify()).rejects.toMatchObject({
      code: "Unavailable",
      message: expect.stringContaining("damaged"),
    });
    await expect(verify()).rejects.toMatchObject({ code: "Unavailable" });
    write("root/tree/f", "one");
    await verify();
  });

  it("notes files that were read, and reads again what changed", async () => {
    const paths = entryPaths(root);
    write("vmlinuz", "hello");
    const hello = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
    const digest = `sha256:${"0".repeat(64)}`;
    const verify = (sum = hello) => verifyFile(paths, paths.kernel, sum, digest, signal);
    await verify();
    await verify("not read again");
    write("vmlinuz", "other");
    await expect(verify()).rejects.toMatchObject({ code: "Unavailable" });
    rmSync(paths.kernel);
    await expect(verify()).rejects.toMatchObject({ code: "Unavailable" });
  });
});

describe("findFile", () => {
  it("follows links inside the tree only", async () => {
    write("usr/lib/os-release", 'PRETTY_NAME="X"');
    mkdirSync(join(root, "etc"));
    symlinkSync("../usr/lib/os-release", join(root, "etc/os-release"));
    symlinkSync("/usr", join(root, "absolute"));
    symlinkSync("../../../../../../../../etc/passwd", join(root, "climbs"));
    symlinkSync("/etc/passwd", join(root, "out"));
    symlinkSync("loop", join(root, "loop"));
    const expected = join(root, "usr/lib/os-release");
    expect(await findFile(root, "/etc/os-release")).toBe(expected);
    expect(await findFile(root, "/absolute/lib/os-release")).toBe(expected);
    expect(await findFile(root, "/../usr/./lib/../lib/os-release")).toBe(expected);
    for (const path of ["climbs", "out", "loop", "usr", "usr/lib/os-release/x", "no"]) {
      expect(await findFile(root, path), path).toBeUndefined();
    }
    expect(await readStart(root, "/etc/os-release", 6)).toBe("PRETTY");
  });
});

describe("inspectTree", () => {
  it("refuses a tree without init", async () => {
    write("bin/sh");
    await expect(inspectTree(root)).rejects.toMatchObject({ code: "Invalid", message: /no \/sbin\/init/ });
  });

  it("says container only without a kernel", async () => {
    write("lib/systemd/systemd");
    mkdirSync(join(root, "sbin"));
    symlinkSync("/lib/systemd/systemd", join(root, "sbin/init"));
    write("etc/os-release", "NAME=x\nPRETTY_NAME='Tiny 1'\n");
    expect(await inspectTree(root)).toEqual({
      os: "Tiny 1",
      dataPaths: [],
      types: ["container"],
      limitation: expect.stringContaining("no kernel"),
      remark: "",
    });
    write("boot/vmlinuz-6.1.0-9-amd64"); // without its modules
    expect(await inspectTree(root)).toMatchObject({ types: ["container"] });
  });

  it("says what a Dockerfile's image runs, and what was added to it", async () => {
    write("sbin/init");
    write("usr/lib/strata/added", "linux-image-x\nsystemd-sysv\n");
    expect((await inspectTree(root)).remark).toBe("added by Strata: linux-image-x, systemd-sysv");
    const rest = { environment: [], workingDirectory: "/", user: "", stopSignal: "SIGTERM" };
    const application = { ...rest, command: ["/server", "\n"], ports: ["80/tcp"] };
    write("usr/lib/strata/application.json", JSON.stringify(application));
    expect((await inspectTree(root)).remark).toMatch(/^runs \/server +, exposes 80\/tcp; added by Strata: /);
  });

  it("takes the newest kernel that has modules, with its initrd", async () => {
    write("sbin/init");
    for (const version of ["6.1.0-9-amd64", "6.1.0-10-amd64", "6.1.0-11-amd64"])
      write(`boot/vmlinuz-${version}`);
    for (const version of ["6.1.0-9-amd64", "6.1.0-10-amd64"]) write(`lib/modules/${version}/modules.dep`);
    write("boot/initrd.img-6.1.0-10-amd64");
    expect((await inspectTree(root)).boot).toEqual({
      kernel: join(root, "boot/vmlinuz-6.1.0-10-amd64"),
      initrd: join(root, "boot/initrd.img-6.1.0-10-amd64"),
    });
  });

  it("knows kernels named by flavour and does not follow them out of the tree", async () => {
    write("sbin/init");
    write("lib/modules/6.6.1-0-virt/modules.dep");
    write("boot/vmlinuz-virt");
    write("boot/initramfs-virt");
    expect((await inspectTree(root)).boot).toEqual({
      kernel: join(root, "boot/vmlinuz-virt"),
      initrd: join(root, "boot/initramfs-virt"),
    });
    rmSync(join(root, "boot/vmlinuz-virt"));
    symlinkSync("/etc/passwd", join(root, "boot/vmlinuz-virt"));
    expect((await inspectTree(root)).types).toEqual(["container"]);
  });
});

it("reads os-release names with and without quotes", () => {
  expect(prettyName('PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n')).toBe("Debian GNU/Linux 12 (bookworm)");
  expect(prettyName("A=1\nPRETTY_NAME=Alpine\u0007 x")).toBe("Alpine x");
  expect(prettyName("")).toBe("");
});

it("orders kernel versions by number", () => {
  const versions = ["6.1.0-10", "6.1.0-9", "5.10.0-30", "6.12.1"];
  expect(versions.sort(compareVersions)).toEqual(["5.10.0-30", "6.1.0-9", "6.1.0-10", "6.12.1"]);
});
