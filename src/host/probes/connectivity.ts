/**
 * Whether a guest would reach what it should, tried from end to end: a real network with one guest (a namespace) in it,
 * and packets from there. What does not pass is sent once more under the kernel's own tracing of rules, which says whose
 * rule took it.
 */
import { mkdtemp, rm } from "node:fs/promises";
import { createConnection } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { systemClock } from "../../core/clock.ts";
import { describeError } from "../../core/errors.ts";
import { type IpAddress, parseIp } from "../../core/ip-range.ts";
import { silentLogger } from "../../core/logger.ts";
import type { Cgroups } from "../cgroups.ts";
import { joinBridge } from "../networks/bridge-port.ts";
import { chooseResolvFile, resolvFiles } from "../networks/dnsmasq-config.ts";
import { createNetworks } from "../networks/kernel-networks.ts";
import type { CardPolicy, NetworkRequest } from "../networks/networks.ts";
import { run } from "../run.ts";
import type { Finding } from "./finding.ts";
import type { HostFiles } from "./host-files.ts";

export interface ConnectivityFacts {
  /** `passes`, or what happened instead. */
  gateway: string;
  hostToGuest: string;
  /** Undefined: the host itself has no server to ask, or does not reach it. */
  outside: string | undefined;
  /** Who took the packet to the outside, such as `ip filter FORWARD: policy drop`. */
  blocker: string;
  /** The server that was asked. */
  server: string;
}

const passes = "passes";
const uid = "d0ct0r0000000000";
const cardUid = "d0ct0r0000000001";
const macAddress = "02:00:c6:33:64:02";
const guestAddress = "198.51.100.2";
const port = "g-doctor";
const testPort = 7;

/** Needs root. Leaves nothing. */
export async function readConnectivity(
  files: HostFiles,
  openCgroups: () => Promise<Cgroups>,
  signal: AbortSignal,
): Promise<ConnectivityFacts> {
  const runDir = await mkdtemp(join(tmpdir(), "strata-doctor-"));
  const guest = `strata-doctor-${process.pid}`;
  const networks = createNetworks({
    config: { namespace: "doctor", runDir },
    cgroups: await openCgroups(),
    clock: systemClock,
    logger: silentLogger,
  });
  try {
    const { netns, hostAddress } = await networks.ensure(request, signal);
    await networks.apply(
      uid,
      { cards: [card], groups: [openGroup], publishedPorts: [], addresses: [] },
      signal,
    );
    await run("ip", ["netns", "add", guest], { signal });
    await joinBridge(netns, [{ port, bridge: "br0", macAddress }], {
      before: `link add name ${port} type veth peer name eth0 address ${macAddress} netns ${guest}\n`,
      signal,
    });
    await run("ip", ["-n", guest, "-batch", "-"], { input: guestLinks, signal });
    return await tryLegs({ files, guest, hostAddress, signal });
  } finally {
    await run("ip", ["netns", "del", guest], { expected: [0, 1] }).catch(() => {});
    const ending = AbortSignal.timeout(20_000);
    await networks.removeEverything(ending).catch(() => {});
    networks.close();
    await rm(runDir, { recursive: true, force: true });
  }
}

const request: NetworkRequest = {
  uid,
  cidr: "198.51.100.0/24",
  domain: "doctor.internal",
  hostRoute: false,
  internet: true,
  subnets: [{ name: "doctor", index: 0, cidr: "198.51.100.0/24", gateway: "198.51.100.1" }],
  peerings: [],
};
const openGroup = {
  uid: "d0ct0r0000000002",
  ingress: [],
  egress: [{ protocol: "any" as const, peer: { cidr: "0.0.0.0/0" } }],
};
const card: CardPolicy = {
  ...{ uid: cardUid, subnet: "doctor", port, macAddress, ipAddress: guestAddress },
  ...{ groups: [openGroup.uid], metadata: false },
};
const guestLinks = `link set lo up
address add ${guestAddress}/24 dev eth0
link set eth0 up
route add default via 198.51.100.1
`;

interface Legs {
  files: HostFiles;
  /** Name of the guest's namespace. */
  guest: string;
  hostAddress: string;
  signal: AbortSignal;
}

async function tryLegs({ files, guest, hostAddress, signal }: Legs): Promise<ConnectivityFacts> {
  const from = (...command: string[]) =>
    run("ip", ["netns", "exec", guest, "busybox", ...command], {
      expected: [0, 1, 2],
      signal,
      timeoutMs: 15_000,
    });
  const ping = await from("ping", "-c", "1", "-W", "3", "198.51.100.1");
  const gateway = ping.status === 0 ? passes : "the guest gets no answer from its gateway";
  const hostToGuest = await reachGuest(guest, hostAddress, signal);
  const server = await upstreamServer(files);
  const ask = ["nc", "-w", "3", server, "53", "-e", "/bin/true"];
  const own =
    server === ""
      ? 1
      : (await run("busybox", ask, { expected: [0, 1, 2], signal, timeoutMs: 15_000 })).status;
  if (own !== 0) return { gateway, hostToGuest, outside: undefined, blocker: "", server };
  if ((await from(...ask)).status === 0)
    return { gateway, hostToGuest, outside: passes, blocker: "", server };
  const blocker = await findBlocker(server, () => from(...ask), signal);
  return { gateway, hostToGuest, outside: `the guest gets no answer from ${server}`, blocker, server };
}

/** A connection that the guest refuses has reached it. */
async function reachGuest(guest: string, localAddress: string, signal: AbortSignal): Promise<string> {
  const server = run(
    "ip",
    ["netns", "exec", guest, "busybox", "nc", "-l", "-p", String(testPort), "-w", "5"],
    {
      expected: [0, 1],
      signal,
      timeoutMs: 10_000,
    },
  ).catch(() => undefined);
  const result = await new Promise<string>((resolve) => {
    const socket = createConnection({ host: guestAddress, port: testPort, localAddress, timeout: 3_000 });
    const end = (what: string) => {
      socket.destroy();
      resolve(what);
    };
    socket.once("connect", () => end(passes));
    socket.once("timeout", () => end("no answer"));
    socket.once("error", (error: NodeJS.ErrnoException) =>
      end(error.code === "ECONNREFUSED" ? passes : describeError(error)),
    );
  });
  await server;
  return result;
}

/** The first DNS server of the host that is not on its loopback; "" without one. */
async function upstreamServer(files: HostFiles): Promise<string> {
  const texts = await Promise.all(
    resolvFiles.map(async (path) => ({ path, text: await files.text(path.slice(1)) })),
  );
  const path = chooseResolvFile(texts);
  const text = texts.find((one) => one.path === path)?.text ?? "";
  const servers = [...text.matchAll(/^\s*nameserver\s+(\S+)/gm)].map(([, server = ""]) => server);
  const isOutside = (address: IpAddress | undefined) =>
    address?.family === 4 && address.value >> 24n !== 127n;
  return servers.find((server) => isOutside(parseIp(server))) ?? "";
}

const tracing = "strata-doctor-trace";

/** Sends it again, with every rule that looks at it written down by the kernel. */
async function findBlocker(
  server: string,
  send: () => Promise<unknown>,
  signal: AbortSignal,
): Promise<string> {
  const table = `table ip ${tracing} {
  chain trace {
    type filter hook prerouting priority -350; policy accept;
    ip daddr ${server} tcp dport 53 meta nftrace set 1
  }
}
`;
  const ended = new AbortController();
  const stop = AbortSignal.any([signal, ended.signal]);
  let trace = "";
  try {
    await run("nft", ["-f", "-"], { input: table, signal });
    // Line by line: `nft monitor` ends only when it is killed, and then its output is lost to whoever waits for its end.
    const watching = run("sh", ["-c", "exec nft monitor trace >&2"], {
      signal: stop,
      onStderrLine: (line) => {
        trace += `${line}\n`;
      },
    }).catch(() => {});
    await systemClock.sleep(300, signal);
    await send();
    await systemClock.sleep(300, signal);
    ended.abort();
    await watching;
  } finally {
    await run("nft", ["delete", "table", "ip", tracing], { expected: [0, 1] });
  }
  return parseTrace(trace);
}

/**
 * Whose verdict ended a traced packet: `FAMILY TABLE CHAIN: RULE`, or `policy drop`; "" when none did (then it left this
 * machine, or iptables-legacy took it, which does not say).
 */
export function parseTrace(trace: string): string {
  const rules = new Map<string, string>();
  for (const line of trace.split("\n")) {
    const [, place = "", kind, rest = ""] =
      /^trace id \w+ (\S+ \S+ \S+) (rule|policy|verdict|packet:)\s*(.*)$/.exec(line) ?? [];
    if (kind === "policy" && rest.startsWith("drop")) return `${place}: policy drop`;
    if (kind !== "rule") continue;
    rules.set(place, rest);
    const verdict = /^(.*) \(verdict (?:drop|reject)\)$/.exec(rest);
    if (verdict) return `${place}: ${verdict[1]}`;
  }
  return "";
}

export function connectivityFindings(facts: ConnectivityFacts): Finding[] {
  const inside = facts.gateway === passes && facts.hostToGuest === passes;
  const seen = {
    "guest to gateway": facts.gateway,
    "host to guest": facts.hostToGuest,
    "guest to outside": facts.outside ?? "not tried: this machine itself reaches no DNS server outside",
  };
  if (inside && facts.outside !== undefined && facts.outside === passes) {
    return [
      {
        area: "network",
        title: "a guest reaches its gateway, the host and the outside",
        level: "ok",
        facts: seen,
        meaning: "",
        advice: "",
      },
    ];
  }
  if (!inside) {
    return [
      {
        ...{
          area: "network",
          title: "a guest and this machine do not reach each other",
          level: "problem",
          facts: seen,
        },
        meaning: "Guests start, and cannot be reached.",
        advice:
          "Look for rules of others in `nft list ruleset` and `iptables-save` that drop what they do not know.",
      },
    ];
  }
  if (facts.outside === undefined) {
    return [
      {
        ...{ area: "network", title: "a guest reaches its gateway and the host", level: "ok", facts: seen },
        meaning: "Whether it would reach the outside cannot be told: this machine does not.",
        advice: "",
      },
    ];
  }
  const who = facts.blocker === "" ? "nobody on this machine that nftables knows of" : facts.blocker;
  return [
    {
      ...{ area: "network", title: "a guest does not reach the outside", level: "problem" },
      facts: { ...seen, "blocked by": who },
      meaning: "Guests talk to one another and to this machine only: no updates, no packages.",
      advice:
        facts.blocker === ""
          ? "Look at iptables-legacy (`iptables-legacy -S FORWARD`), and at firewalls between this machine and the outside."
          : `Have ${facts.blocker.split(":", 1)[0]} accept what is forwarded from guests.`,
    },
  ];
}
