/**
 * Virtual networks as users design them, on real guests: two projects with the same ranges, each with a virtual machine,
 * a system container and an application container. Inside a network everybody reaches everybody; between networks
 * nothing passes, which is captured rather than assumed.
 */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { run } from "../src/host/run.ts";
import { imageKind } from "../src/kinds/image.ts";
import { type Instance, instanceKind } from "../src/kinds/instance.ts";
import { networkKind } from "../src/kinds/network.ts";
import { projectKind } from "../src/kinds/project.ts";
import { securityGroupKind } from "../src/kinds/security-group.ts";
import { TestEngine } from "./docker-engine.ts";
import { FramesIn, sendFrames } from "./frames.ts";
import { guestPid } from "./guest-pid.ts";
import { findLeaks, type Snapshot, takeSnapshot } from "./leaks.ts";
import { addressOf, TestDaemon, until } from "./test-daemon.ts";
import { tinyImage } from "./tiny-image.ts";

const projects = ["north", "south"] as const;
const guests = ["vm", "box", "app"] as const;
const cidr = "10.0.0.0/16";
const ipv6Cidr = "fd00:5:7::/48";

let before: Snapshot;
let engine: TestEngine;
let daemon: TestDaemon;

beforeAll(async () => {
  before = await takeSnapshot();
  engine = await TestEngine.start("/var/tmp/strata-e2e-engine");
  daemon = await TestDaemon.create({ STRATA_DOCKER_SOCKET: engine.socketPath });
  await daemon.start();
  const tiny = await tinyImage();
  for (const project of projects) {
    await daemon.client.create(projectKind, { name: project, spec: {} });
    await daemon.ok(["image", "import", "tiny", tiny, "-p", project]);
    await daemon.client.create(imageKind, {
      project,
      name: "debian",
      spec: { source: { type: "debian", suite: "bookworm" } },
    });
    await daemon.client.create(networkKind, { project, name: "vpc", spec: { cidr, ipv6Cidr } });
    for (const name of guests)
      await daemon.client.create(instanceKind, { project, name, spec: specOf(name) });
  }
  await until("all guests serve", async () => (await all()).every(isReady), 300_000, 200);
}, 500_000);

afterAll(async () => {
  await daemon?.dispose().finally(() => engine.stop());
  expect(await findLeaks(before, daemon.marks)).toEqual([]);
}, 120_000);

/** Every guest serves its host name, on IPv4 and IPv6. */
function specOf(name: (typeof guests)[number]) {
  const common = { network: "vpc", services: [{ name: "http", port: 80 }] };
  if (name === "vm") {
    const serve =
      "mkdir -p /srv/www; cd /srv/www; hostname > index.html; systemd-run --working-directory=/srv/www python3 -m http.server 80 --bind ::";
    const userData = `#cloud-config\nruncmd:\n  - ${JSON.stringify(["sh", "-c", serve])}\n`;
    return { ...common, type: "vm" as const, image: "debian", memoryMib: 512, diskMib: 4096, userData };
  }
  const small = { ...common, type: "container" as const, image: "tiny", memoryMib: 128, diskMib: 128 };
  if (name === "box") return { ...small, driver: "lxc" };
  const serve = "mkdir -p /tmp/www; hostname > /tmp/www/index.html; exec httpd -f -p 80 -h /tmp/www";
  return { ...small, driver: "docker", application: { command: ["/bin/sh", "-c", serve] } };
}

async function all(): Promise<Instance[]> {
  return (await Promise.all(projects.map((project) => daemon.instances(project)))).flat();
}

function isReady(instance: Instance): boolean {
  return instance.status.conditions.some((one) => one.type === "Ready" && one.status === "true");
}

async function find(project: string, name: string): Promise<Instance> {
  return await daemon.client.require(instanceKind, { project, name });
}

/** Runs a command in a guest; the exit status does not matter. */
async function inside(project: string, name: string, ...command: string[]) {
  return await daemon.strata(["exec", "-p", project, name, "--", ...command], { timeoutMs: 60_000 });
}

/** What a guest gets from another by HTTP; "" without an answer. */
async function fetchFrom(project: string, from: string, target: string): Promise<string> {
  const request = "GET / HTTP/1.0\\r\\n\\r\\n";
  const python = `import socket; s = socket.create_connection(("${target}", 80), 3); s.sendall(b"${request}"); print(s.makefile().read())`;
  const command =
    from === "vm" ? ["python3", "-c", python] : ["sh", "-c", `printf '${request}' | nc -w 3 ${target} 80`];
  const { stdout } = await inside(project, from, ...command);
  return stdout.trim().split("\n").at(-1)?.trim().split(".", 1)[0] ?? "";
}

/** Path of the namespace of a network, and the port of a guest in it. */
async function networkOf(project: string): Promise<{ netns: string; portOf(instance: Instance): string }> {
  const { metadata } = await daemon.client.require(networkKind, { project, name: "vpc" });
  return {
    netns: `/run/netns/${daemon.settings.namespace}-${metadata.uid}`,
    portOf: (instance) => `g-${instance.metadata.uid.slice(0, 12)}`,
  };
}

describe("two networks with the same range", () => {
  it("give the same addresses to different guests", async () => {
    const [north, south] = await Promise.all(projects.map((project) => daemon.instances(project)));
    const addresses = (list: Instance[] = []) => list.map(addressOf).sort();
    expect(addresses(north)).toEqual(addresses(south));
  });

  it("let all pairs of guests talk by name, over IPv4 and IPv6", async () => {
    for (const project of projects) {
      for (const from of guests) {
        for (const to of guests.filter((one) => one !== from)) {
          const { ipAddress, ipv6Address = "" } = (await find(project, to)).status.nic ?? {};
          for (const target of [to, `${to}.vpc.${project}.internal`, ipAddress ?? "", ipv6Address]) {
            expect(await fetchFrom(project, from, target), `${project}: ${from} asks ${target}`).toBe(to);
          }
          const names = await inside(project, from, "getent", "ahosts", to);
          if (from === "vm") expect(names.stdout).toContain(ipv6Address);
        }
      }
    }
  }, 120_000);

  it("never let a packet pass from one to the other", async () => {
    const [vm, box, app] = await Promise.all(guests.map((name) => find("south", name)));
    const { netns, portOf } = await networkOf("south");
    const ports = [vm, box, app].map((one) => (one ? portOf(one) : ""));
    const frames = await FramesIn.open(netns, [...ports, "uplink"]);
    // Everything that the sender can think of: its own network has the same addresses, so these go to its neighbours.
    const targets = (await daemon.instances("south")).flatMap((one) => [
      addressOf(one),
      one.status.nic?.ipv6Address,
    ]);
    for (const target of targets) await inside("north", "box", "ping", "-c", "2", "-W", "1", target ?? "");
    await inside("north", "vm", "ping", "-c", "2", "-W", "1", addressOf(box as Instance));
    // A payload that nothing else has.
    await inside("north", "box", "ping", "-c", "2", "-W", "1", "-p", "5a", addressOf(app as Instance));
    const seen = await frames.close();
    const north = (await daemon.instances("north")).map((one) => one.status.nic?.macAddress);
    expect(seen.filter((frame) => north.includes(frame.source))).toEqual([]);
    expect(seen.filter((frame) => frame.hex.includes("5a5a5a5a5a5a5a5a"))).toEqual([]);
  }, 60_000);
});

describe("forged frames", () => {
  it.each([
    ["another MAC", "mac"],
    ["another IPv4 address", "ip"],
    ["another IPv6 address", "ipv6"],
    ["an ARP reply for the gateway", "arp"],
    ["a router advertisement", "ra"],
    ["a neighbour advertisement for the gateway", "na"],
    ["a DHCP offer", "dhcp"],
  ] as const)(
    "of a guest with %s reach nobody",
    async (_name, kind) => {
      const [box, app] = await Promise.all([find("north", "box"), find("north", "app")]);
      const { netns, portOf } = await networkOf("north");
      const victim = await FramesIn.open(netns, [portOf(app), portOf(await find("north", "vm")), "uplink"]);
      const gateway = "10.0.0.1";
      await sendFrames(await guestPid(box), kind, { from: box, to: app, gateway });
      // What is sent after them arrives, so they had their chance.
      expect(await fetchFrom("north", "box", addressOf(app))).toBe("app");
      const seen = await victim.close();
      expect(seen.filter((frame) => frame.hex.includes("f0f0f0f0f0f0f0f0"))).toEqual([]);
      const gatewayMac = (await inside("north", "app", "cat", "/proc/net/arp")).stdout;
      expect(gatewayMac).not.toContain("02:f0:f0:f0:f0:f0");
    },
    60_000,
  );
});

describe("security groups", () => {
  it("deny what no rule allows, and follow a change at once", async () => {
    const project = "north";
    await daemon.client.create(securityGroupKind, { project, name: "closed", spec: { ingress: [] } });
    await daemon.client.patch(
      instanceKind,
      { project, name: "app" },
      { spec: { securityGroups: ["closed"] } },
    );
    const reach = () => fetchFrom(project, "box", "app");
    await until("the group is in force", async () => (await reach()) === "", 10_000);
    const rule = { protocol: "tcp" as const, ports: "80", group: "default" };
    await daemon.client.patch(securityGroupKind, { project, name: "closed" }, { spec: { ingress: [rule] } });
    await until("the rule is in force", async () => (await reach()) === "app", 10_000);
    const ping = await inside(project, "box", "ping", "-c", "1", "-W", "1", "app");
    expect(ping.status).not.toBe(0);
    await daemon.client.patch(
      instanceKind,
      { project, name: "app" },
      { spec: { securityGroups: ["default"] } },
    );
    await until(
      "the default group is back",
      async () => (await inside(project, "box", "ping", "-c", "1", "-W", "1", "app")).status === 0,
      10_000,
    );
  }, 60_000);
});

describe("published ports and addresses", () => {
  it("lead from the host to a guest, and move to another by one command", async () => {
    const project = "south";
    await daemon.ok(["security-group", "create", "web", "-p", project]);
    await daemon.ok(["security-group", "allow", "web", "--tcp", "80", "--from", "0.0.0.0/0", "-p", project]);
    for (const name of ["box", "app"]) {
      await daemon.client.patch(
        instanceKind,
        { project, name },
        { spec: { securityGroups: ["default", "web"] } },
      );
    }
    await daemon.ok(["publish", "18080", "box:80", "-p", project]);
    await until(
      "the port leads to box",
      async () => (await page("http://127.0.0.1:18080/")) === "box",
      10_000,
    );
    await daemon.ok(["publish", "18080", "app:80", "-p", project]);
    await until(
      "the port leads to app",
      async () => (await page("http://127.0.0.1:18080/")) === "app",
      10_000,
    );
    const address = await daemon.json<{ status: { ipAddress: string } }>([
      "address",
      "allocate",
      "floating",
      "-p",
      project,
    ]);
    const url = `http://${address.status.ipAddress}/`;
    await daemon.ok(["address", "assign", "floating", "box", "-p", project]);
    await until("the address is box's", async () => (await page(url)) === "box", 10_000);
    await daemon.ok(["address", "assign", "floating", "app", "-p", project]);
    await until("the address is app's", async () => (await page(url)) === "app", 10_000);
  }, 60_000);
});

describe("what breaks heals by itself", () => {
  it("when the rules of a network are flushed by hand", async () => {
    const { netns } = await networkOf("north");
    await run("nsenter", [`--net=${netns}`, "nft", "flush", "ruleset"]);
    await until(
      "the rules are back",
      async () => {
        const { stdout } = await run("nsenter", [`--net=${netns}`, "nft", "list", "ruleset"]);
        return stdout.includes("table bridge") && stdout.includes("table inet");
      },
      20_000,
      100,
    );
    expect(await fetchFrom("north", "box", "app")).toBe("app");
  }, 60_000);

  it("when the daemon is killed, and connections of guests go on", async () => {
    const south = await find("south", "box");
    const pid = await guestPid(south);
    const target = addressOf(await find("south", "vm"));
    // One connection, held open across the kill: what is sent after it still arrives.
    const script = `import socket, sys
s = socket.create_connection(("${target}", 80), 10)
print("open", flush=True)
sys.stdin.readline()
s.sendall(b"GET / HTTP/1.0\\r\\n\\r\\n")
print(s.makefile().read())`;
    const { spawn } = await import("node:child_process");
    const client = spawn("nsenter", [`--net=/proc/${pid}/ns/net`, "python3", "-c", script], {
      stdio: ["pipe", "pipe", "inherit"],
    });
    let output = "";
    client.stdout.setEncoding("utf8").on("data", (text: string) => {
      output += text;
    });
    const ended = new Promise((resolve) => client.on("close", resolve));
    await until("the connection is open", () => output.includes("open"), 15_000);
    await daemon.kill();
    await daemon.start();
    await until("the daemon knows its guests again", async () => (await all()).every(isReady), 60_000, 100);
    client.stdin.end("go\n");
    await ended;
    expect(output).toContain("vm");
    expect(await guestPid(await find("south", "box"))).toBe(pid);
  }, 120_000);
});

async function page(url: string): Promise<string> {
  try {
    return (
      (await (await fetch(url, { signal: AbortSignal.timeout(1_000) })).text()).trim().split(".", 1)[0] ?? ""
    );
  } catch {
    return "";
  }
}
