/**
 * The metadata service as guests see it: stock cloud-init of Debian takes its keys, name and user data from it, in a
 * virtual machine with sessions and in a container; whoever is not entitled gets nothing.
 *
 * The guests boot from their seed first. Then they are told to know EC2's data source only, made to forget everything, and
 * restarted: what they have afterwards can only come from the service.
 */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { metadataEndpoint } from "../src/host/networks/networks.ts";
import { imageKind } from "../src/kinds/image.ts";
import { instanceKind } from "../src/kinds/instance.ts";
import { keyPairKind } from "../src/kinds/key-pair.ts";
import { networkKind } from "../src/kinds/network.ts";
import { findLeaks, type Snapshot, takeSnapshot } from "./leaks.ts";
import { addressOf, TestDaemon, until } from "./test-daemon.ts";

const project = "default";
const publicKey =
  "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGk1k1k1k1k1k1k1k1k1k1k1k1k1k1k1k1k1k1k1k1k1 ada@example";
const userData = '#cloud-config\nruncmd:\n  - [sh, -c, "echo told > /etc/told"]\n';

let before: Snapshot;
let daemon: TestDaemon;

beforeAll(async () => {
  before = await takeSnapshot();
  daemon = await TestDaemon.create();
  await daemon.start();
  const source = { type: "debian" as const, suite: "bookworm" as const };
  await daemon.client.create(imageKind, { project, name: "debian", spec: { source } });
  await daemon.client.create(keyPairKind, { project, name: "ada", spec: { publicKey } });
  const common = { image: "debian", diskMib: 2048, memoryMib: 512, userData, keyPairs: ["ada"] };
  const specs = {
    vm: { ...common, type: "vm" as const },
    box: { ...common, type: "container" as const, metadata: { tokens: "optional" as const } },
    near: { ...common, type: "container" as const },
  };
  for (const [name, spec] of Object.entries(specs)) {
    await daemon.client.create(instanceKind, { project, name, spec });
  }
  await until("the image is ready", async () => (await image()).status.state === "ready", 900_000, 500);
  for (const name of Object.keys(specs)) await booted(name);
}, 1_200_000);

afterAll(async () => {
  await daemon?.dispose();
  expect(await findLeaks(before, daemon.marks)).toEqual([]);
}, 300_000);

const image = () => daemon.client.require(imageKind, { project, name: "debian" });
const instance = (name: string) => daemon.client.require(instanceKind, { project, name });

async function inside(name: string, ...command: string[]) {
  return await daemon.strata(["exec", "-p", project, name, "--", ...command], { timeoutMs: 120_000 });
}

/** Waits until cloud-init has done everything. */
async function booted(name: string): Promise<void> {
  await until(
    `${name} has booted`,
    async () => (await inside(name, "test", "-e", "/run/cloud-init/result.json")).status === 0,
    240_000,
    500,
  );
}

/** Changes something inside, forgets everything that cloud-init did, and restarts. */
async function bootAnew(name: string, change: string): Promise<void> {
  const forget = `${change}
rm -rf /var/lib/cloud/instance /var/lib/cloud/instances /var/lib/cloud/data /var/lib/cloud/sem
rm -f /root/.ssh/authorized_keys /home/*/.ssh/authorized_keys /etc/told
echo nobody > /etc/hostname`;
  expect(await inside(name, "sh", "-ec", forget)).toMatchObject({ status: 0 });
  await daemon.ok(["restart", "-p", project, name]);
  await booted(name);
}

interface Request {
  method?: string;
  headers?: Record<string, string>;
  /** Sent from this address. */
  source?: string;
}

/** What a guest's request to the service gives: the status (0: nobody answers) and the text. */
async function ask(from: string, path: string, { method = "GET", headers = {}, source = "" }: Request = {}) {
  const program = `
import http.client, json, sys
path, method, headers, source = json.loads(sys.argv[1])
try:
    to = http.client.HTTPConnection("169.254.169.254", timeout=3, source_address=(source, 0) if source else None)
    to.request(method, path, headers=headers)
    answer = to.getresponse()
    print(json.dumps([answer.status, answer.read().decode()]))
except OSError as error:
    print(json.dumps([0, str(error)]))
`;
  const asked = JSON.stringify([path, method, headers, source]);
  const { stdout, stderr } = await inside(from, "python3", "-c", program, asked);
  expect(stdout, stderr).not.toBe("");
  const [status, text] = JSON.parse(stdout) as [number, string];
  return { status, text };
}

const ttl = { "X-aws-ec2-metadata-token-ttl-seconds": "300" };
async function sessionOf(from: string) {
  const { status, text } = await ask(from, "/latest/api/token", { method: "PUT", headers: ttl });
  expect(status, text).toBe(200);
  return { "X-aws-ec2-metadata-token": text };
}

describe.each(["box", "vm"])("stock cloud-init in %s", (name) => {
  it("takes keys, name and user data from the service alone", async () => {
    await bootAnew(
      name,
      "printf 'datasource_list: [Ec2]\\ndatasource: {Ec2: {strict_id: false}}\\n' > /etc/cloud/cloud.cfg.d/99_ec2.cfg",
    );
    const result = JSON.parse((await inside(name, "cat", "/run/cloud-init/result.json")).stdout);
    expect(result.v1).toMatchObject({ datasource: expect.stringMatching(/^DataSourceEc2/), errors: [] });
    const told = await inside(name, "sh", "-c", "hostname; cat /etc/told /root/.ssh/authorized_keys");
    expect(told.stdout).toBe(`${name}\ntold\n${publicKey}\n`);
  });
});

describe("the seed", () => {
  it("lets root in with the keys on images that would not, beside user data", async () => {
    await bootAnew("near", "sed -i /disable_root/d /etc/cloud/cloud.cfg.d/90_strata.cfg");
    const keys = await inside(
      "near",
      "sh",
      "-c",
      "cat /etc/told /root/.ssh/authorized_keys /home/debian/.ssh/authorized_keys",
    );
    expect(keys.stdout).toBe(`told\n${publicKey}\n${publicKey}\n`);
  });
});

describe("the metadata service", () => {
  it("answers with a session, and with nothing without", async () => {
    for (const name of ["vm", "near"]) {
      const headers = await sessionOf(name);
      const { ipAddress, macAddress } = (await instance(name)).status.nic ?? expect.fail("no card");
      const get = async (path: string) => (await ask(name, `/latest/meta-data/${path}`, { headers })).text;
      expect(await get("local-ipv4")).toBe(ipAddress);
      expect(await get(`network/interfaces/macs/${macAddress}/local-ipv4s`)).toBe(ipAddress);
      expect(await get("public-keys/0/openssh-key")).toBe(publicKey);
      expect(await ask(name, "/latest/user-data", { headers })).toEqual({ status: 200, text: userData });
      expect((await ask(name, "/latest/user-data")).status).toBe(401);
    }
  });

  it("gives a neighbour nothing, neither by a token nor by an address of another", async () => {
    const vm = await instance("vm");
    const headers = await sessionOf("vm");
    expect((await ask("near", "/latest/user-data", { headers })).status).toBe(401);
    const address = addressOf(vm);
    expect(await inside("near", "ip", "address", "add", `${address}/32`, "dev", "eth0")).toMatchObject({
      status: 0,
    });
    const forged = await ask("near", "/latest/user-data", { headers, source: address });
    expect(forged.status, forged.text).toBe(0);
    await inside("near", "ip", "address", "del", `${address}/32`, "dev", "eth0");
  });

  it("gives programs of the host nothing, who are no instance", async () => {
    const { status } = await daemon.client.require(networkKind, { project, name: "default" });
    const [hostAddress = ""] = Object.values(status.hostAddresses);
    const url = `http://${hostAddress}:${metadataEndpoint.hostPort}/`;
    const asked = fetch(url, { signal: AbortSignal.timeout(5_000) });
    await expect(asked).rejects.toMatchObject({ cause: { code: "UND_ERR_SOCKET" } });
  });

  it("refuses what is forwarded", async () => {
    const headers = { ...ttl, "X-Forwarded-For": "203.0.113.1" };
    expect((await ask("near", "/latest/api/token", { method: "PUT", headers })).status).toBe(403);
  });

  it("answers with a time to live of 1", async () => {
    const program = `
import http.client, socket
frames = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.ntohs(3))
to = http.client.HTTPConnection("169.254.169.254", timeout=3)
to.request("GET", "/")
to.getresponse().read()
frames.settimeout(1)
seen = set()
try:
    while True:
        frame = frames.recv(2048)
        if frame[12:14] == b"\\x08\\x00" and frame[26:30] == bytes([169, 254, 169, 254]): seen.add(frame[22])
except TimeoutError:
    print(sorted(seen))
`;
    expect((await inside("near", "python3", "-c", program)).stdout).toBe("[1]\n");
  });

  it("keeps sessions over a restart of the daemon", async () => {
    const headers = await sessionOf("near");
    await daemon.stop();
    await daemon.start();
    await until(
      "the service answers again",
      async () => (await ask("near", "/latest/user-data", { headers })).status === 200,
      30_000,
      100,
    );
  });

  it("can be switched off while the guest runs", async () => {
    await daemon.client.patch(
      instanceKind,
      { project, name: "near" },
      { spec: { metadata: { enabled: false } } },
    );
    await until(
      "the service is off",
      async () =>
        [0, 403].includes((await ask("near", "/latest/api/token", { method: "PUT", headers: ttl })).status),
      30_000,
      100,
    );
  });
});
