/**
 * Whatever is wrong gets one clear error: what, where, and what would be allowed. Nothing is changed by it, nothing of
 * it stays behind, and no host file is touched.
 */
import { createHash } from "node:crypto";
import { mkdir, readdir, readFile, writeFile } from "node:fs/promises";
import { request } from "node:http";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { run } from "../src/host/run.ts";
import { imageKind } from "../src/kinds/image.ts";
import { projectKind } from "../src/kinds/project.ts";
import { findLeaks, type Snapshot, takeSnapshot } from "./leaks.ts";
import { type CliResult, TestDaemon, testImageDir } from "./test-daemon.ts";
import { tinyImage } from "./tiny-image.ts";

const httpsPort = 17443;

let daemon: TestDaemon;
let tiny: string;
let before: Snapshot;

beforeAll(async () => {
  before = await takeSnapshot();
  daemon = await TestDaemon.create({ STRATA_HTTPS_PORT: String(httpsPort) });
  tiny = await tinyImage();
  await daemon.start();
  await daemon.ok(["image", "import", "tiny", tiny]);
});

afterAll(async () => {
  await daemon?.dispose();
  expect(await findLeaks(before, daemon.marks)).toEqual([]);
});

/** All there is, so that two listings can be compared. */
async function everything(): Promise<string> {
  const projects = await daemon.client.list(projectKind, {});
  const images = await daemon.client.list(imageKind, {});
  const stored = (await readdir(testImageDir)).filter((name) => /^[0-9a-f]{64}$/.test(name)).sort();
  return JSON.stringify([
    projects.items.map((one) => one.metadata.uid),
    images.items.filter((one) => one.status.state === "ready").map((one) => one.metadata.uid),
    (await daemon.instances()).map((one) => one.metadata.uid),
    stored,
  ]);
}

function expectClear(result: CliResult, status: number, ...parts: (string | RegExp)[]): void {
  const text = result.stderr;
  expect(result.status, text).toBe(status);
  for (const part of parts) expect(text).toMatch(part);
  expect(text.match(/^error: /gm), text).toHaveLength(1);
  expect(text).not.toMatch(/^\s+at |node:internal|TypeError|ZodError/m);
}

describe("a stack file", () => {
  const cases: [what: string, text: string, parts: (string | RegExp)[]][] = [
    [
      "with an unknown key",
      "stack: bad\ninstances:\n  a: { type: vm, image: tiny, memry: 64MiB }\n",
      [/bad\.yaml:3:\d+/, /memry/, /memory/],
    ],
    [
      "with a wrong unit",
      "stack: bad\ninstances:\n  a: { type: vm, image: tiny, memory: 2GB }\n",
      [/bad\.yaml:3:\d+/, /memory/, /"2GB"/, /MiB/],
    ],
    [
      "with more memory than the host has",
      "stack: bad\nproject: default\ninstances:\n  a: { type: container, image: tiny, memory: 900GiB }\n",
      [/bad\.yaml:4:\d+/, /900 GiB/, /up to [\d.]+ GiB/],
    ],
    [
      "with the same name twice after counting",
      "stack: bad\nproject: default\ninstances:\n  a: { type: vm, image: tiny, count: 2 }\n  a-1: { type: vm, image: tiny }\n",
      [/bad\.yaml:\d+:\d+/, /a-1/],
    ],
    [
      "with the same key twice",
      "stack: bad\ninstances:\n  a: { type: vm, image: tiny }\n  a: { type: vm, image: tiny }\n",
      [/bad\.yaml:4:\d+/],
    ],
    [
      "with an image that is not there",
      "stack: bad\nproject: default\ninstances:\n  a: { type: vm, image: tinny }\n",
      [/bad\.yaml:4:\d+/, /tinny/, /tiny/],
    ],
    [
      "with a name of shell characters",
      'stack: bad\nproject: default\ninstances:\n  "a;reboot": { type: vm, image: tiny }\n',
      [/bad\.yaml:4:\d+/, /a;reboot/, /a-z, 0-9/],
    ],
    [
      "with user data over the limit",
      `stack: bad\nproject: default\ninstances:\n  a: { type: vm, image: tiny, userData: "${"x".repeat(70_000)}" }\n`,
      [/bad\.yaml:4:\d+/, /userData/, /65536 bytes/],
    ],
    [
      "with a file from outside of its directory",
      "stack: bad\nproject: default\ninstances:\n  a: { type: vm, image: tiny, files: [{ source: ../../../../etc/shadow, path: /x }] }\n",
      [/bad\.yaml:4:\d+/, /shadow/],
    ],
    ["that is no YAML", "stack: [bad\n", [/bad\.yaml:\d+:\d+/]],
  ];
  it.each(cases)("%s is refused, with the place, and changes nothing", async (_, text, parts) => {
    const file = await daemon.writeFile("bad.yaml", text);
    const state = await everything();
    expectClear(await daemon.strata(["up", file, "--yes"]), 2, ...parts);
    expect(await everything()).toBe(state);
  });
});

describe("the command line", () => {
  it("refuses what the API refuses, and suggests what was meant", async () => {
    expectClear(await daemon.strata(["launch", "tinny", "a"]), 3, /tinny/, /tiny/);
    expectClear(await daemon.strata(["launch", "tiny", "a b"]), 2, /a b/, /a-z, 0-9/);
    expectClear(
      await daemon.strata(["launch", "tiny", "a", "--memory", "900GiB"]),
      7,
      /900 GiB/,
      /largest host/,
    );
    expectClear(await daemon.strata(["info", "nothing"]), 3, /nothing/);
    const misspelt = await daemon.strata(["lunch", "tiny"]);
    expect(misspelt.status).toBe(2);
    expect(misspelt.stderr).toMatch(/launch/);
    expect(await daemon.instances()).toEqual([]);
  });
});

describe("an image", () => {
  /** A tar with one entry of this type, name and link target, after a plausible beginning. */
  function tarWith(name: string, type: string, target = "", repeat = 1): Buffer {
    const header = (path: string, kind: string, link: string) => {
      const block = Buffer.alloc(512);
      block.write(path, 0);
      block.write("0000755\0", 100);
      block.write("0000000\0", 108);
      block.write("0000000\0", 116);
      block.write("00000000000\0", 124);
      block.write("00000000000\0", 136);
      block.write("        ", 148);
      block.write(kind, 156);
      block.write(link, 157);
      block.write("ustar\x0000", 257);
      const sum = block.reduce((total, byte) => total + byte, 0);
      block.write(`${sum.toString(8).padStart(6, "0")}\0 `, 148);
      return block;
    };
    const entries = Array.from({ length: repeat }, () => header(name, type, target));
    return Buffer.concat([
      header("sbin/", "5", ""),
      header("sbin/init", "0", ""),
      ...entries,
      Buffer.alloc(1024),
    ]);
  }

  const hostile: [what: string, tar: () => Buffer | Promise<Buffer>, part: RegExp][] = [
    ["that climbs out", () => tarWith("../../../../tmp/strata-was-here", "0"), /\.\./],
    ["with an absolute path", () => tarWith("/tmp/strata-was-here", "0"), /strata-was-here/],
    ["with a device node", () => tarWith("etc/disk", "4"), /etc\/disk/],
    [
      "with a hard link to the outside",
      () => tarWith("etc/passwd", "1", "../../../etc/shadow"),
      /etc\/passwd|shadow/,
    ],
    [
      "that writes through a symbolic link of its own",
      () => {
        const link = tarWith("out", "2", "/tmp");
        const file = tarWith("out/strata-was-here", "0").subarray(1024);
        return Buffer.concat([link.subarray(0, link.length - 1024), file]);
      },
      /out/,
    ],
    [
      "that is truncated",
      async () => (await readFile(tiny)).subarray(0, 5_000_000),
      /truncated|ends|incomplete|cut/i,
    ],
    ["that is no archive", () => Buffer.from("hello, world\n".repeat(100)), /archive|tar/i],
  ];
  it.each(hostile)("%s is refused and leaves nothing", async (_, make, part) => {
    const directory = await daemon.scratch("hostile");
    const path = join(directory, "root.tar");
    await writeFile(path, await make());
    const state = await everything();
    const result = await daemon.strata(["image", "import", "hostile", path]);
    await daemon.strata(["image", "delete", "hostile", "--yes"]);
    expect(result.status, result.stderr).not.toBe(0);
    expect(result.stderr).toMatch(part);
    expect(result.stderr.match(/^error: /gm)).toHaveLength(1);
    expect(await everything()).toBe(state);
    expect(await readdir("/tmp")).not.toContain("strata-was-here");
    expect((await readdir(join(testImageDir, "tmp"))).length).toBe(0);
  });

  it("whose checksum differs is refused, and says both", async () => {
    const wrong = createHash("sha256").update("something else").digest("hex");
    const state = await everything();
    const result = await daemon.strata(["image", "import", "wrong", tiny, "--sha256", wrong]);
    expect(result.status).not.toBe(0);
    expect(result.stderr).toMatch(/checksum|sha256/i);
    await daemon.strata(["image", "delete", "wrong", "--yes"]);
    expect(await everything()).toBe(state);
  });
});

describe("the API", () => {
  it("answers a body of 100 MB with 413, and works on", async () => {
    const status = await new Promise<number>((resolve, reject) => {
      const call = request(
        {
          socketPath: daemon.settings.socketPath,
          path: "/v1/projects",
          method: "POST",
          headers: { "content-type": "application/json" },
        },
        (response) => {
          response.resume();
          resolve(response.statusCode ?? 0);
        },
      );
      call.on("error", reject);
      const piece = Buffer.alloc(1024 * 1024, "x");
      let sent = 0;
      const send = () => {
        while (sent < 100) {
          sent++;
          if (!call.write(piece)) return call.once("drain", send);
        }
        return call.end();
      };
      send();
    });
    expect(status).toBe(413);
    expect((await daemon.client.list(projectKind, {})).items.length).toBeGreaterThan(0);
  });

  it("shows a token of another project nothing and lets it do nothing", async () => {
    await daemon.ok(["project", "create", "mine"]);
    await daemon.ok(["project", "create", "theirs"]);
    const token = await daemon.json<{ secret?: string; token?: string }>([
      ...["token", "create", "intruder", "--role", "member", "--project", "theirs"],
    ]);
    const secret = token.secret ?? token.token ?? "";
    expect(secret.length).toBeGreaterThan(30);
    const as = (args: string[]) =>
      daemon.strata(
        [
          ...args,
          "--url",
          `https://127.0.0.1:${httpsPort}`,
          "--ca",
          join(daemon.settings.stateDir, "tls/cert.pem"),
        ],
        {
          env: { STRATA_TOKEN: secret },
        },
      );
    const own = await as(["list", "instances", "-p", "theirs"]);
    expect(own.status, own.stderr).toBe(0);
    const foreign = await as(["list", "instances", "-p", "mine"]);
    const missing = await as(["list", "instances", "-p", "no-such-project"]);
    expect(foreign.status).not.toBe(0);
    expect(foreign.stderr.replaceAll("mine", "X")).toBe(missing.stderr.replaceAll("no-such-project", "X"));
    expect((await as(["launch", "tiny", "a", "-p", "mine"])).status).not.toBe(0);
    expect((await as(["host", "list"])).status).not.toBe(0);
  });
});

describe("a full disk", () => {
  it("fails an import with one clear error and leaves nothing half-made", async () => {
    const directory = await daemon.scratch("full");
    await run("mount", ["-t", "tmpfs", "-o", "size=12m", "tmpfs", directory]);
    const small = await TestDaemon.create({ STRATA_IMAGE_DIR: join(directory, "images") });
    try {
      await mkdir(join(directory, "images"), { recursive: true });
      await small.start();
      const result = await small.strata(["image", "import", "tiny", tiny], {
        env: { STRATA_IMAGE_DIR: join(directory, "images") },
      });
      expect(result.status).not.toBe(0);
      expect(result.stderr).toMatch(/space/);
      expect(await readdir(join(directory, "images", "tmp"))).toEqual([]);
    } finally {
      await small.dispose();
      await run("umount", [directory]);
    }
  });
});
