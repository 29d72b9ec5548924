/**
 * Load balancers on real containers: HAProxy in front of guests whose host names tell who answered. Clients are this
 * process, on loopback.
 */
import { connect } from "node:net";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { systemClock } from "../src/core/clock.ts";
import { RuntimeApi } from "../src/host/balancers/runtime-api.ts";
import { parseStatistics } from "../src/host/balancers/runtime-texts.ts";
import { certificateKind } from "../src/kinds/certificate.ts";
import { instanceKind } from "../src/kinds/instance.ts";
import { loadBalancerKind } from "../src/kinds/load-balancer.ts";
import { networkKind } from "../src/kinds/network.ts";
import {
  answerer,
  answerers,
  ask,
  askHttp2,
  BalancerScene,
  type OwnCertificate,
  ownCertificate,
  project,
} from "./balancer-scene.ts";
import { findLeaks, type Snapshot, takeSnapshot } from "./leaks.ts";
import { until } from "./test-daemon.ts";

const port = 18_080;
const securePort = 18_443;
const socketPort = 18_081;
let before: Snapshot;
let scene: BalancerScene;
let own: OwnCertificate;

/** Answers an upgrade and sends back what comes. The values are those of RFC 6455, 1.3. */
const webSocket = `#!/bin/busybox sh
while read -r line; do [ "$line" = "$(printf '\\r')" ] && break; done
printf 'HTTP/1.1 101 Switching Protocols\\r\\nUpgrade: websocket\\r\\nConnection: Upgrade\\r\\n'
printf 'Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\\r\\n\\r\\n'
exec cat
`;

beforeAll(async () => {
  before = await takeSnapshot();
  scene = await BalancerScene.create();
  own = await ownCertificate(await scene.daemon.scratch("certificates"), "www.example.test");
  const network = { project, name: "twin", spec: { cidr: "10.9.0.0/24" } };
  const twin = { ...network, name: "other-twin" };
  for (const one of [network, twin]) await scene.daemon.client.create(networkKind, one);
  for (const name of ["one", "two"]) await scene.createInstance(name);
  await scene.createInstance("left", "twin", { ipAddress: "10.9.0.10" });
  await scene.createInstance("right", "other-twin", { ipAddress: "10.9.0.10" });
  await scene.untilReady("one", "two", "left", "right");
  for (const name of ["one", "two"]) {
    await scene.addProgram(
      name,
      "slow",
      "#!/bin/sh\nsleep 2\nprintf 'Content-Type: text/plain\\r\\n\\r\\n'\nhostname\n",
    );
  }
  const serve = "cat >/run/socket; chmod 755 /run/socket; nc -ll -p 81 -e /run/socket >/dev/null 2>&1 &";
  await scene.daemon.ok(["exec", "one", "--", "sh", "-c", serve], { input: webSocket });
  const https = { port: securePort, protocol: "https", certificates: ["site"] };
  await scene.daemon.client.create(certificateKind, { project, name: "site", spec: { own: { ...own } } });
  await scene.createBalancer("front", { listeners: [{ port }, https], instances: ["one", "two"] });
  await scene.untilServers("front", { one: "up", two: "up" });
}, 300_000);

afterAll(async () => {
  await scene?.daemon.dispose();
  expect(await findLeaks(before, scene.daemon.marks)).toEqual([]);
}, 120_000);

/** Requests under way, as HAProxy tells. */
async function sessionsOf(name: string): Promise<number> {
  const { uid } = (await scene.balancer(name)).metadata;
  const api = new RuntimeApi(join(scene.daemon.settings.runDir, "balancers", uid, "admin.sock"), systemClock);
  try {
    const all = parseStatistics(await api.ask("show stat targets 6 -1"));
    return all.find((one) => one.uid === undefined)?.sessions ?? 0;
  } finally {
    api.close();
  }
}

describe("requests", () => {
  it("are spread, over HTTP/1.1, HTTP/2 and TLS", async () => {
    const tls = { ca: own.certificate, servername: "www.example.test" };
    expect(await answerers(port, 6)).toEqual(["one", "two"]);
    expect(await answerers(securePort, 6, { tls })).toEqual(["one", "two"]);
    expect((await askHttp2(`https://127.0.0.1:${securePort}`, own.certificate)).status).toBe(200);
    expect((await askHttp2(`http://127.0.0.1:${port}`)).status).toBe(200);
  });

  it("follow a change of the instances without a reload", async () => {
    await scene.change("front", { instances: ["two"] });
    await scene.untilServers("front", { two: "up" });
    expect(await answerers(port, 6)).toEqual(["two"]);
    await scene.change("front", { instances: ["one", "two"] });
    await scene.untilServers("front", { one: "up", two: "up" });
    expect(await answerers(port, 6)).toEqual(["one", "two"]);
  });

  it("are told apart where networks have the same addresses", async () => {
    for (const [index, name] of ["left", "right"].entries()) {
      await scene.createBalancer(name, { listeners: [{ port: 18_090 + index }], instances: [name] });
      await scene.untilServers(name, { [name]: "up" });
    }
    expect(await answerers(18_090, 4)).toEqual(["left"]);
    expect(await answerers(18_091, 4)).toEqual(["right"]);
    await scene.delete("left");
    await scene.delete("right");
  });

  it("that are under way end before their instance leaves", async () => {
    const slow = Promise.all(Array.from({ length: 4 }, () => ask(port, { path: "/cgi-bin/slow" })));
    await until("all are under way", async () => (await sessionsOf("front")) === 4, 5_000);
    await scene.change("front", { instances: ["one"] });
    await scene.untilServers("front", { one: "up" });
    const { targets } = (await scene.balancer("front")).status;
    expect(targets.map(({ name }) => name)).toEqual(["one"]);
    expect(await answerers(port, 6)).toEqual(["one"]);
    const answers = await slow;
    expect(answers.map(({ status }) => status)).toEqual([200, 200, 200, 200]);
    expect([...new Set(answers.map(answerer))].sort()).toEqual(["one", "two"]);
    await scene.change("front", { instances: ["one", "two"] });
    await scene.untilServers("front", { one: "up", two: "up" });
  });

  it("stay with their instance by cookie", async () => {
    await scene.change("front", { sticky: "cookie" });
    await scene.untilServers("front", { one: "up", two: "up" });
    const first = await ask(port);
    const cookie = first.cookies[0]?.split(";", 1)[0] ?? "";
    expect(cookie).toMatch(/^strata-instance=/);
    expect(await answerers(port, 6, { headers: { cookie } })).toEqual([answerer(first)]);
    expect((await ask(port, { headers: { cookie } })).cookies).toEqual([]);
    expect(await answerers(port, 6)).toEqual(["one", "two"]);
    // A cookie of one that left leads to another, with a cookie of that.
    const other = answerer(first) === "one" ? "two" : "one";
    await scene.change("front", { instances: [other] });
    await scene.untilServers("front", { [other]: "up" });
    const moved = await ask(port, { headers: { cookie } });
    expect(answerer(moved)).toBe(other);
    expect(moved.cookies).toHaveLength(1);
    await scene.change("front", { instances: ["one", "two"], sticky: "none" });
    await scene.untilServers("front", { one: "up", two: "up" });
  });

  it("stay with their instance by address", async () => {
    await scene.change("front", { sticky: "source" });
    await scene.untilServers("front", { one: "up", two: "up" });
    expect(await answerers(port, 6)).toHaveLength(1);
    await scene.change("front", { sticky: "none" });
  });

  it("of those who may not connect are refused", async () => {
    const closed = { port, allowFrom: ["203.0.113.0/24"] };
    const https = { port: securePort, protocol: "https", certificates: ["site"] };
    await scene.change("front", { listeners: [closed, https] });
    await expect(ask(port)).rejects.toThrow();
    await scene.change("front", { listeners: [{ port, redirectTo: securePort }, https] });
    expect((await ask(port, { path: "/a?b" })).status).toBe(308);
    await scene.change("front", { listeners: [{ port }, https] });
    expect((await ask(port)).status).toBe(200);
  });

  it("become WebSockets", async () => {
    await scene.createBalancer("sockets", {
      listeners: [{ port: socketPort }],
      instances: ["one"],
      targetPort: 81,
    });
    await scene.untilServers("sockets", { one: "up" });
    const socket = connect(socketPort, "127.0.0.1");
    let text = "";
    socket.setEncoding("utf8").on("data", (part: string) => {
      text += part;
    });
    socket.write(
      "GET /chat HTTP/1.1\r\nHost: www.example.test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    );
    await until("the upgrade is answered", () => text.includes("\r\n\r\n"), 5_000);
    expect(text).toMatch(/^HTTP\/1.1 101 /);
    socket.write("ping through the tunnel\n");
    await until("it comes back", () => text.endsWith("ping through the tunnel\n"), 5_000);
    // It goes on after its instance was taken out.
    await scene.change("sockets", { instances: ["two"] });
    socket.write("still here\n");
    await until("it comes back", () => text.endsWith("still here\n"), 5_000);
    socket.destroy();
    await scene.delete("sockets");
  });
});

describe("requests without an instance", () => {
  it("are held until one is there, and counted", async () => {
    await scene.createInstance("late", "default", { power: "stopped" });
    await scene.createBalancer("sleeper", { listeners: [{ port: socketPort }], instances: ["late"] });
    const asked = Array.from({ length: 20 }, () => ask(socketPort));
    await until("they are counted", async () => (await scene.balancer("sleeper")).status.held === 20, 5_000);
    const ref = { project, name: "late" };
    await scene.daemon.client.patch(instanceKind, ref, { spec: { power: "running" } });
    const answers = await Promise.all(asked);
    expect(new Set(answers.map(answerer))).toEqual(new Set(["late"]));
    await until("none is held", async () => (await scene.balancer("sleeper")).status.held === 0, 5_000);
  });

  it("are refused when nobody comes in time", async () => {
    await scene.change("sleeper", { instances: [], queueSeconds: 1 });
    await until(
      "it has no target",
      async () => (await scene.balancer("sleeper")).status.targets.length === 0,
      5_000,
    );
    const { status, text } = await ask(socketPort);
    expect(status).toBe(503);
    expect(text).toContain("no instance");
    await scene.delete("sleeper");
  });
});

describe("what people see", () => {
  it("the access log names who answered", async () => {
    await ask(port, { path: "/?marked" });
    await until(
      "the line is there",
      async () => {
        const { stdout } = await scene.daemon.ok(["load-balancer", "logs", "front"]);
        return /127\.0\.0\.1 (one|two) 200 \d+ bytes \d+ ms.* "GET \/\?marked HTTP\/1\.1"/.test(stdout);
      },
      10_000,
    );
  });

  it("figures of requests and latency", async () => {
    await until(
      "they are reported",
      async () => {
        await ask(port);
        const current = await scene.daemon.client.currentMetrics("load-balancers", { project });
        const values = current.find(({ name }) => name === "front")?.values ?? {};
        return (values.requests ?? 0) > 0 && values["latency-95"] !== undefined;
      },
      15_000,
    );
  });

  it("no private key", async () => {
    const shown = JSON.stringify(await scene.daemon.client.list(certificateKind, { project }));
    const secret = own.privateKey.split("\n")[1] ?? "";
    expect(shown).not.toContain(secret);
    expect(shown).toContain("HIDDEN PRIVATE KEY");
    expect(await scene.daemon.log()).not.toContain(secret);
  });

  it("clear refusals", async () => {
    const { client } = scene.daemon;
    const refusal = (promise: Promise<unknown>) =>
      promise.then(
        () => "",
        (error: Error) => error.message,
      );
    const again = { listeners: [{ port }], instances: ["one"], targetPort: 80 };
    expect(await refusal(client.create(loadBalancerKind, { project, name: "again", spec: again }))).toContain(
      'load balancer "front" has already',
    );
    expect(await refusal(client.delete(certificateKind, { project, name: "site" }))).toContain(
      'load balancer "front" uses it',
    );
    const wrong = {
      own: { certificate: own.certificate, privateKey: "-----BEGIN PRIVATE KEY-----\nAAAA\n" },
    };
    expect(await refusal(client.create(certificateKind, { project, name: "wrong", spec: wrong }))).toContain(
      "cannot be read",
    );
  });
});
