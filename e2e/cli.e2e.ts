/**
 * The command line as a process, against a daemon with a pretended host: daemon life cycle, exit statuses, terminals,
 * signals, tokens. What needs real guests is in the other files.
 */
import { spawn, spawnSync } from "node:child_process";
import { chmod, cp, mkdir, readdir, stat } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { spawn as spawnTerminal } from "@lydell/node-pty";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { daemonCommand, findDaemon } from "../src/bin/daemon-process.ts";
import { settingsEnvironment } from "../src/bin/settings.ts";
import { TestDaemon, until } from "./test-daemon.ts";

const main = fileURLToPath(new URL("../src/bin/strata.ts", import.meta.url));
const fake = { STRATA_FAKE: "1" };

let daemon: TestDaemon;
const environment = () => ({ ...process.env, ...settingsEnvironment(daemon.settings), NO_COLOR: "1" });
const strata = (...args: string[]) => daemon.strata(args, { env: fake });

beforeAll(async () => {
  daemon = await TestDaemon.create(fake);
  await daemon.ok(["daemon", "start", "--fake"], { env: fake });
  await daemon.ok(["image", "build", "debian12"], { env: fake });
  await daemon.ok(["launch", "debian12", "web", "--service", "http:80/http"], { env: fake });
});
afterAll(async () => {
  await daemon?.dispose();
});

const stack = (instances: string) =>
  daemon.writeFile("s.yaml", `stack: s\nimages: { i: { debian: trixie } }\ninstances:\n${instances}\n`);

describe("the daemon", () => {
  it("is started once however often it is asked for, and says where it is", async () => {
    const pid = daemon.pid();
    const again = await strata("daemon", "start", "--fake");
    expect(again.stdout).toContain("runs already");
    expect(daemon.pid()).toBe(pid);
    const status = await strata("daemon", "status", "--json");
    expect(JSON.parse(status.stdout)).toMatchObject({
      running: true,
      pid,
      socket: daemon.settings.socketPath,
      namespace: daemon.settings.namespace,
    });
  });

  it("keeps its directories passable and its secrets to itself", async () => {
    const { stateDir, socketPath, logFile } = daemon.settings;
    const modeOf = async (path: string) => (await stat(path)).mode & 0o777;
    expect(await modeOf(stateDir)).toBe(0o711);
    expect(await modeOf(socketPath)).toBe(0o600);
    expect(await modeOf(logFile)).toBe(0o600);
    expect(await modeOf(join(stateDir, "tls"))).toBe(0o700);
    expect(await modeOf(join(stateDir, "tls", "key.pem"))).toBe(0o600);
  });

  it("logs JSON lines, which `daemon logs` shows", async () => {
    const { stdout } = await strata("daemon", "logs");
    const messages = stdout
      .trim()
      .split("\n")
      .map((line) => (JSON.parse(line) as { msg: string }).msg);
    expect(messages).toContain("the daemon runs");
  });

  it("ends within two seconds when asked to, also with streams open, and starts again", async () => {
    const follower = spawn(process.execPath, [main, "events", "-f"], { env: environment(), stdio: "ignore" });
    const begun = performance.now();
    expect((await strata("daemon", "stop")).stdout).toContain("instances keep running");
    expect(performance.now() - begun).toBeLessThan(2_000 + 1_000); // with the start of the command line itself
    expect(daemon.pid()).toBeUndefined();
    const down = await strata("list");
    expect([down.status, down.stderr.match(/^error: /gm)?.length]).toEqual([5, 1]);
    expect((await strata("daemon", "status")).status).toBe(3);
    await daemon.ok(["daemon", "start", "--fake"], { env: fake });
    follower.kill("SIGKILL");
    await daemon.ok(["image", "build", "debian12"], { env: fake });
    await daemon.ok(["launch", "debian12", "web", "--service", "http:80/http"], { env: fake });
  });

  it("stands beside others on the same machine", async () => {
    const other = await TestDaemon.create(fake);
    await other.ok(["daemon", "start", "--fake"], { env: fake });
    expect(JSON.parse((await other.ok(["list", "--json"], { env: fake })).stdout)).toEqual([]);
    expect(JSON.parse((await strata("list", "--json")).stdout)).toHaveLength(1);
    await other.dispose();
    expect((await strata("list")).status).toBe(0);
  });

  it("refuses a state directory that another one has, in one sentence", async () => {
    const real = await TestDaemon.create();
    await real.start();
    const { command, args } = daemonCommand();
    const env = { ...process.env, ...settingsEnvironment(real.settings) };
    const second = spawnSync(command, args, { env, encoding: "utf8" });
    expect(second.status).toBe(75);
    expect(second.stderr).toMatch(/"msg":"[^"]*another Strata daemon is using [^"]*"/);
    expect(findDaemon(real.settings)?.pid).toBe(real.pid());
    await real.dispose();
  });
});

describe("wrong input", () => {
  it.each([
    [["lsit"], 2, "Did you mean list?"],
    [["list", "imagse"], 2, 'did you mean "images"?'],
    [["list", "--lable", "a=b"], 2, "Did you mean --label?"],
    [["info", "wbe"], 3, 'did you mean "web"?'],
    [["launch", "debian12", "web"], 4, "web"],
    [["launch", "debian12", "x", "--memory", "1GB"], 2, "1GiB|512MiB"],
    [["delete", "web"], 2, "--yes"],
    [["console", "web"], 2, "terminal"],
    [["up", "no-such.yaml"], 3, "no-such.yaml"],
    [["list", "--socket", "/run/nobody.sock"], 5, "/run/nobody.sock"],
  ])("%j ends with %i and helps", async (args, status, hint) => {
    const result = await strata(...args);
    expect(result.status, result.stderr).toBe(status);
    expect(result.stderr).toMatch(new RegExp(hint.replaceAll("?", "\\?")));
    expect(result.stderr).not.toMatch(/\n\s+at /);
  });
});

describe("tokens over HTTPS", () => {
  it("open what their role allows, and nothing after their deletion", async () => {
    const { https, certificate } = JSON.parse((await strata("daemon", "status", "--json")).stdout) as Record<
      string,
      string
    >;
    const secret = (await strata("token", "create", "ci", "--role", "viewer", "-p", "default")).stdout.trim();
    const remote = (...args: string[]) =>
      daemon.strata([...args, "--url", https ?? "", "--ca", certificate ?? ""], {
        env: { STRATA_TOKEN: secret },
      });
    expect(JSON.parse((await remote("list", "--json")).stdout)).toHaveLength(1);
    expect((await remote("stop", "web")).status).toBe(6);
    const wrong = await daemon.strata(["list", "--url", https ?? "", "--ca", certificate ?? ""], {
      env: { STRATA_TOKEN: "strata_wrong" },
    });
    expect(wrong.status).toBe(6);
    expect(
      (await daemon.strata(["list", "--url", https ?? ""], { env: { STRATA_TOKEN: secret } })).status,
    ).toBe(5);
    await strata("token", "delete", "ci", "--yes");
    expect((await remote("list")).status).toBe(6);
  });
});

describe("sessions", () => {
  it("exec passes on input, output and status", async () => {
    expect((await daemon.ok(["exec", "web", "--", "echo", "-n", "--json", "a b"])).stdout).toBe(
      "-n --json a b\n",
    );
    expect((await daemon.strata(["exec", "web", "--", "false"])).status).toBe(1);
    const input = "0123456789".repeat(50_000);
    expect((await daemon.ok(["exec", "web", "--", "cat"], { input })).stdout).toBe(input);
    expect((await daemon.ok(["exec", "-e", "A=1 2", "web", "--", "env"])).stdout).toContain("A=1 2\n");
  });

  it("exec -t has a terminal of this terminal's size", async () => {
    const { output } = await onTerminal(["exec", "-t", "web", "--", "stty", "size"], { cols: 97, rows: 31 });
    expect(output).toContain("31 97");
  });

  it("the console echoes, says how to leave, and is left by Ctrl-]", async () => {
    const { output, status } = await onTerminal(["console", "web"], {
      steps: [
        [/Ctrl-\] leaves/, "hello\r"],
        [/hello/, "\u001d"],
      ],
    });
    expect(status).toBe(0);
    expect(output).toContain("left the console");
  });

  it("logs follow until Ctrl-C", async () => {
    const { status } = await interrupt(["logs", "-f", "web"], /login:/);
    expect(status).toBe(130);
  });
});

describe("Ctrl-C", () => {
  it("during up says that the work goes on, which it does", async () => {
    const file = await stack("  a: { type: container, image: i }");
    const { status, output } = await interrupt(["up", file], /images\/i: building/);
    expect(status).toBe(130);
    expect(output).toContain("what was asked for goes on in the background: see `strata list -p s`");
    await until("it runs", async () => (await daemon.instances("s"))[0]?.status.state === "running", 20_000);
    expect((await strata("down", "s", "--yes")).status).toBe(0);
  });

  it("at a question changes nothing", async () => {
    const { output, status } = await onTerminal(["delete", "web"], {
      steps: [[/Go on\? \[y\/N\]/, "\u0003"]],
    });
    expect(status).not.toBe(0);
    expect(output).toContain("web");
    expect((await strata("info", "web")).status).toBe(0);
    const no = await onTerminal(["delete", "web"], { steps: [[/Go on\?/, "n\r"]] });
    expect(no.output).toContain("nothing was changed");
    expect((await strata("info", "web")).status).toBe(0);
  });
});

describe("colours and progress", () => {
  it("appear on a terminal and honour NO_COLOR", async () => {
    const green = "\u001b[32m";
    expect((await onTerminal(["list"], { env: { NO_COLOR: "" } })).output).toContain(green);
    expect((await onTerminal(["list"])).output).not.toContain(green);
    expect((await strata("list")).stdout).not.toContain("\u001b");
  });
});

describe("completion", () => {
  it("knows commands, options and names", async () => {
    const words = async (...args: string[]) =>
      (await strata("__complete", "--", ...args)).stdout.trim().split("\n");
    expect(await words("st")).toEqual(["start", "stop"]);
    expect(await words("image", "b")).toEqual(["build"]);
    expect(await words("stop", "w")).toEqual(["web"]);
    expect(await words("launch", "--mem")).toEqual(["--memory"]);
    expect(await words("up", "ex")).toEqual([":files"]);
  });

  it("is a script that its shell accepts", async () => {
    const { stdout } = await strata("completion", "bash");
    expect(spawnSync("bash", ["-n"], { input: stdout }).status).toBe(0);
    const asked = `${stdout}\nstrata() { '${process.execPath}' '${main}' "$@"; }
COMP_WORDS=(strata sto); COMP_CWORD=1; _strata; echo "\${COMPREPLY[*]}"`;
    const { stdout: replies } = spawnSync("bash", ["-c", asked], { env: environment(), encoding: "utf8" });
    expect(replies.trim()).toBe("stop");
  });
});

describe("without root", () => {
  it("what needs it says so in one sentence", async () => {
    const root = await daemon.scratch("checkout");
    const from = fileURLToPath(new URL("..", import.meta.url));
    for (const part of ["src", "sim", "tools", "examples", "package.json"]) {
      await cp(join(from, part), join(root, part), { recursive: true });
    }
    await mkdir(join(root, "node_modules"));
    for (const part of await readdir(join(from, "node_modules"))) {
      if (
        /^(commander|yaml|zod|pino.*|ws|sonic-boom|atomic-sleep|thread-stream|on-exit-leak-free|quick-format-unescaped|safe-stable-stringify|real-require|process-warning|split2|@pinojs)$/.test(
          part,
        )
      ) {
        await cp(join(from, "node_modules", part), join(root, "node_modules", part), { recursive: true });
      }
    }
    await cp(process.execPath, join(root, "node"));
    for (const path of [root, join(root, "..")]) await chmod(path, 0o755);
    const env = { PATH: "/usr/bin:/bin", STRATA_DIR: join(root, "none") };
    const call = (...args: string[]) => {
      const command = [
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
        join(root, "node"),
        join(root, "src/bin/strata.ts"),
        ...args,
      ];
      return spawnSync("setpriv", command, { env, encoding: "utf8" });
    };
    for (const args of [
      ["up", join(root, "examples/campus.yaml")],
      ["daemon", "start"],
      ["uninstall", "--yes"],
      ["test"],
    ]) {
      const { status, stderr } = call(...args);
      expect(stderr, args[0]).toMatch(/^error: .* needs? root: run it with sudo\n$/);
      expect(status).toBe(6);
    }
  });
});

interface TerminalOptions {
  cols?: number;
  rows?: number;
  env?: Record<string, string>;
  /** When the output matches, types the text; in order. */
  steps?: [pattern: RegExp, input: string][];
}

/** Runs the command line on a terminal of its own. */
function onTerminal(
  args: string[],
  options: TerminalOptions = {},
): Promise<{ output: string; status: number }> {
  const { cols = 120, rows = 40, env = {}, steps = [] } = options;
  const terminal = spawnTerminal(process.execPath, [main, ...args], {
    cols,
    rows,
    env: { ...environment(), TERM: "xterm", ...env } as Record<string, string>,
  });
  let output = "";
  let seen = 0;
  const left = [...steps];
  terminal.onData((data) => {
    output += data;
    const [next] = left;
    if (!next?.[0].test(output.slice(seen))) return;
    left.shift();
    seen = output.length;
    terminal.write(next[1]);
  });
  return new Promise((resolve) => {
    terminal.onExit(({ exitCode }) => resolve({ output, status: exitCode }));
  });
}

/** Runs it without a terminal and sends SIGINT once its output matches. */
async function interrupt(args: string[], when: RegExp): Promise<{ output: string; status: number | null }> {
  const child = spawn(process.execPath, [main, ...args], {
    env: environment(),
    stdio: ["ignore", "pipe", "pipe"],
  });
  let output = "";
  for (const stream of [child.stdout, child.stderr]) {
    stream.on("data", (data: Buffer) => {
      const before = when.test(output);
      output += data;
      if (!before && when.test(output)) child.kill("SIGINT");
    });
  }
  return await new Promise((resolve) => child.once("close", (status) => resolve({ output, status })));
}
