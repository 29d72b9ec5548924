import { request } from "node:http";
import { createServer } from "node:net";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { Client } from "../../client/client.ts";
import { systemClock } from "../../core/clock.ts";
import { newUid, type Uid } from "../../core/ids.ts";
import { silentLogger } from "../../core/logger.ts";
import { systemRandom } from "../../core/random.ts";
import type { NetworkAttachment, NetworkRequest, Networks } from "../../host/networks/networks.ts";
import { addressKind } from "../../kinds/address.ts";
import { instanceKind } from "../../kinds/instance.ts";
import { keyPairKind } from "../../kinds/key-pair.ts";
import type { Kind } from "../../kinds/kind.ts";
import { networkKind } from "../../kinds/network.ts";
import { networkInterfaceKind } from "../../kinds/network-interface.ts";
import { securityGroupKind } from "../../kinds/security-group.ts";
import { subnetKind } from "../../kinds/subnet.ts";
import type { ResourceView } from "../resource-view.ts";
import { type AgentViews, createViews } from "../views.ts";
import { findInstance } from "./find-instance.ts";
import { serveMetadata } from "./serve-metadata.ts";

const port = 40_000 + (process.pid % 20_000);
const key = "ssh-ed25519 AAAAada ada@example";
let views: AgentViews;
let revision = 0;

beforeEach(() => {
  const client = {} as Client; // nothing is fetched: resources are put
  views = createViews({ client, clock: systemClock, logger: silentLogger, hostName: "here" });
});

/** Puts a resource as if the API had told of it. */
function put<S, T>(
  view: ResourceView<S, T>,
  kind: Kind<S, T>,
  name: string,
  spec: unknown,
  status: object = {},
): Uid {
  const uid = newUid(systemRandom);
  const project = "demo";
  const metadata = {
    name,
    project,
    uid,
    revision: ++revision,
    generation: 1,
    labels: {},
    createdAt: "2026-01-02T03:04:05.678Z",
    finalizers: [],
  };
  const resource = {
    kind: kind.name,
    metadata,
    spec: kind.spec.parse(spec),
    status: { ...kind.initialStatus(), ...status },
  };
  view.put(view.keyOf(resource), resource);
  return uid;
}

function putNetwork(name = "lan"): Uid {
  const status = { cidr: "127.0.0.0/8", ipv6Cidr: "fd00:1:2::/48", domain: `${name}.demo.internal` };
  const uid = put(views.networks, networkKind, name, {}, status);
  put(
    views.subnets,
    subnetKind,
    `${name}-a`,
    { network: name, cidr: "10.0.1.0/24" },
    { ipv6Cidr: "fd00:1:2:1::/64" },
  );
  return uid;
}

function putInstance(name: string, ipAddress: string, spec: object = {}, network = "lan"): Uid {
  const nic = {
    network,
    subnet: `${network}-a`,
    macAddress: "02:00:00:00:00:01",
    ipAddress,
    ipv6Address: "fd00::7",
  };
  return put(views.instances, instanceKind, name, { type: "vm", image: "debian", network, ...spec }, { nic });
}

describe("findInstance", () => {
  it("finds who has the address in that network, and all about it", () => {
    const lan = putNetwork();
    const other = putNetwork("other");
    put(views.keyPairs, keyPairKind, "ada", { publicKey: key });
    const group = put(views.securityGroups, securityGroupKind, "web", {});
    const spec = { keyPairs: ["ada", "gone"], securityGroups: ["web", "gone"], userData: "#!/bin/sh\n" };
    const uid = putInstance("web", "10.0.1.7", spec);
    putInstance("twin", "10.0.1.7", {}, "other");
    const address = { ipAddress: "203.0.113.7", state: "bound" };
    put(views.addresses, addressKind, "front", { instance: "web" }, address);
    put(
      views.addresses,
      addressKind,
      "next",
      { instance: "web" },
      { ...address, ipAddress: "203.0.113.8", state: "binding" },
    );
    expect(findInstance(views, lan, "10.0.1.7")).toMatchObject({
      uid,
      hostname: "web.lan.demo.internal",
      access: { enabled: true, tokens: "required" },
      userData: "#!/bin/sh\n",
      publicKeys: [{ name: "ada", text: key }],
      cards: [
        {
          ipAddress: "10.0.1.7",
          ipv6Address: "fd00::7",
          publicAddress: "203.0.113.7",
          securityGroups: [{ name: "web", uid: group }],
          subnet: { cidr: "10.0.1.0/24", ipv6Cidr: "fd00:1:2:1::/64" },
          network: { uid: lan, cidr: "127.0.0.0/8" },
        },
      ],
    });
    expect(findInstance(views, other, "10.0.1.7")?.name).toBe("twin");
    expect(findInstance(views, lan, "10.0.1.8")).toBeUndefined();
    expect(findInstance(views, "0000000000000000", "10.0.1.7")).toBeUndefined();
  });

  it("finds it by a further card, while that is plugged in", () => {
    putNetwork();
    const other = putNetwork("other");
    const uid = putInstance("web", "10.0.1.7");
    const card = { subnet: "other-a", macAddress: "02:00:00:00:00:02", ipAddress: "10.0.1.9" };
    put(views.interfaces, networkInterfaceKind, "second", { network: "other" }, { ...card, instance: "web" });
    put(
      views.interfaces,
      networkInterfaceKind,
      "loose",
      { network: "other" },
      { ...card, ipAddress: "10.0.1.10" },
    );
    const found = findInstance(views, other, "10.0.1.9");
    expect(found?.uid).toBe(uid);
    expect(found?.cards.map((one) => [one.ipAddress, one.network?.uid === other])).toEqual([
      ["10.0.1.7", false],
      ["10.0.1.9", true],
    ]);
    expect(findInstance(views, other, "10.0.1.10")).toBeUndefined();
  });
});

describe("serveMetadata", () => {
  let ended: AbortController;
  let hostAddress: string;
  const never = new AbortController().signal;
  const calls: string[] = [];
  const inner: Networks = {
    async ensure({ uid }) {
      calls.push(`ensure ${uid}`);
      return { netns: "/none", mtu: 1500, hostAddress, subnets: [] } satisfies NetworkAttachment;
    },
    apply: async (uid) => void calls.push(`apply ${uid}`),
    remove: async (uid) => void calls.push(`remove ${uid}`),
    list: async () => ["x"],
    async *events() {
      yield { uid: "x" };
    },
  };
  const serve = () =>
    serveMetadata(
      {
        networks: inner,
        views,
        key: new Uint8Array(32),
        port,
        clock: systemClock,
        random: systemRandom,
        logger: silentLogger,
      },
      ended.signal,
    );
  const requestFor = (uid: string) => ({ uid }) as NetworkRequest;

  beforeEach(() => {
    ended = new AbortController();
    hostAddress = "127.0.84.1";
    calls.length = 0;
  });
  afterEach(() => ended.abort());

  function hostnameFor(from: string, host = hostAddress): Promise<string> {
    return new Promise((resolve) => {
      const path = "/latest/meta-data/local-hostname";
      const sent = request({ host, port, path, localAddress: from, agent: false }, (response) => {
        response.setEncoding("utf8").on("data", resolve);
      });
      sent.on("error", () => resolve("nobody"));
      sent.end();
    });
  }

  it("answers the guests of each network while it is there, and passes everything on", async () => {
    const lan = putNetwork();
    const other = putNetwork("other");
    const open = { metadata: { tokens: "optional" } };
    putInstance("web", "127.0.84.7", open);
    putInstance("twin", "127.0.84.7", open, "other");
    const networks = serve();
    await networks.ensure(requestFor(lan), never);
    hostAddress = "127.0.84.2";
    await networks.ensure(requestFor(other), never);
    expect(await hostnameFor("127.0.84.7", "127.0.84.1")).toBe("web.lan.demo.internal");
    expect(await hostnameFor("127.0.84.7", "127.0.84.2")).toBe("twin.other.demo.internal");
    await networks.apply(lan, { cards: [], groups: [], publishedPorts: [], addresses: [] }, never);
    await networks.remove(lan, never);
    expect(await hostnameFor("127.0.84.7", "127.0.84.1")).toBe("nobody");
    expect(await networks.list()).toEqual(["x"]);
    expect(calls).toEqual([`ensure ${lan}`, `ensure ${other}`, `apply ${lan}`, `remove ${lan}`]);
    ended.abort();
    expect(await hostnameFor("127.0.84.7", "127.0.84.2")).toBe("nobody");
  });

  it("follows a network whose address has changed", async () => {
    const lan = putNetwork();
    putInstance("web", "127.0.84.7", { metadata: { tokens: "optional" } });
    const networks = serve();
    await networks.ensure(requestFor(lan), never);
    hostAddress = "127.0.84.3";
    await networks.ensure(requestFor(lan), never);
    expect(await hostnameFor("127.0.84.7", "127.0.84.1")).toBe("nobody");
    expect(await hostnameFor("127.0.84.7")).toBe("web.lan.demo.internal");
  });

  it("makes the network although it cannot listen yet, and tries on", async () => {
    const lan = putNetwork();
    putInstance("web", "127.0.84.7", { metadata: { tokens: "optional" } });
    const taken = createServer();
    await new Promise<void>((resolve) => taken.listen(port, hostAddress, resolve));
    await serve().ensure(requestFor(lan), never);
    await new Promise((resolve) => taken.close(resolve));
    await expect.poll(() => hostnameFor("127.0.84.7"), { timeout: 5_000 }).toBe("web.lan.demo.internal");
  });
});
