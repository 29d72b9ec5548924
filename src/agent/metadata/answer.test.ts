import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { seededRandom } from "../../core/random.ts";
import { VirtualClock } from "../../core/virtual-clock.ts";
import { answerQuestion } from "./answer.ts";
import type { InstanceFacts } from "./instance-facts.ts";
import { SessionTokens } from "./session-tokens.ts";
import { testFacts } from "./testing-facts.ts";

const tokens = new SessionTokens({
  key: new Uint8Array(32).fill(7),
  clock: new VirtualClock(1_800_000_000_000),
  random: seededRandom(1),
});
const required = testFacts();
const optional = testFacts({ access: { enabled: true, tokens: "optional" } });

function ask(target: string, headers: Record<string, string> = {}, facts = required, method = "GET") {
  const answer = answerQuestion({ method, target, headers }, facts, tokens);
  return { ...answer, text: Buffer.from(answer.body).toString() };
}
function read(path: string, facts: InstanceFacts = required): string | number {
  const { status, text } = ask(path, { "x-aws-ec2-metadata-token": tokens.issue(facts.uid, 60) }, facts);
  return status === 200 ? text : status;
}

describe("the tree", () => {
  it("has all of EC2's that instances have here", () => {
    const lines: string[] = [];
    const walk = (path: string) => {
      for (const name of String(read(path)).split("\n")) {
        const child = `${path}${name.replace(/^(\d+)=.*$/, "$1/")}`;
        if (child.endsWith("/")) walk(child);
        else lines.push(`${child.slice("/latest/".length)}: ${String(read(child)).split("\n").join("|")}`);
      }
    };
    walk("/latest/meta-data/");
    expect(lines.join("\n")).toMatchInlineSnapshot(`
      "meta-data/ami-id: ami-084211084218c6321
      meta-data/ami-launch-index: 0
      meta-data/ami-manifest-path: (unknown)
      meta-data/block-device-mapping/ami: /dev/vda
      meta-data/block-device-mapping/root: /dev/vda
      meta-data/hostname: web.demo.internal
      meta-data/instance-action: none
      meta-data/instance-id: i-00443214c74254b63
      meta-data/instance-life-cycle: on-demand
      meta-data/instance-type: vm.2x1024
      meta-data/ipv6: fd12:3456:789a:1::7
      meta-data/local-hostname: web.demo.internal
      meta-data/local-ipv4: 10.0.1.7
      meta-data/mac: 02:00:00:00:00:07
      meta-data/network/interfaces/macs/02:00:00:00:00:03/device-number: 1
      meta-data/network/interfaces/macs/02:00:00:00:00:03/interface-id: eni-4a529000000000000
      meta-data/network/interfaces/macs/02:00:00:00:00:03/local-ipv4s: 10.0.2.7
      meta-data/network/interfaces/macs/02:00:00:00:00:03/mac: 02:00:00:00:00:03
      meta-data/network/interfaces/macs/02:00:00:00:00:03/owner-id: 000000000000
      meta-data/network/interfaces/macs/02:00:00:00:00:03/security-group-ids: 
      meta-data/network/interfaces/macs/02:00:00:00:00:03/security-groups: 
      meta-data/network/interfaces/macs/02:00:00:00:00:03/subnet-id: subnet-5294a000000000000
      meta-data/network/interfaces/macs/02:00:00:00:00:03/subnet-ipv4-cidr-block: 10.0.2.0/24
      meta-data/network/interfaces/macs/02:00:00:00:00:03/vpc-id: vpc-42108000000000000
      meta-data/network/interfaces/macs/02:00:00:00:00:03/vpc-ipv4-cidr-block: 10.0.0.0/16
      meta-data/network/interfaces/macs/02:00:00:00:00:03/vpc-ipv4-cidr-blocks: 10.0.0.0/16
      meta-data/network/interfaces/macs/02:00:00:00:00:07/device-number: 0
      meta-data/network/interfaces/macs/02:00:00:00:00:07/interface-id: eni-00443214c74254b63
      meta-data/network/interfaces/macs/02:00:00:00:00:07/ipv4-associations/203.0.113.7: 10.0.1.7
      meta-data/network/interfaces/macs/02:00:00:00:00:07/ipv6s: fd12:3456:789a:1::7
      meta-data/network/interfaces/macs/02:00:00:00:00:07/local-hostname: web.demo.internal
      meta-data/network/interfaces/macs/02:00:00:00:00:07/local-ipv4s: 10.0.1.7
      meta-data/network/interfaces/macs/02:00:00:00:00:07/mac: 02:00:00:00:00:07
      meta-data/network/interfaces/macs/02:00:00:00:00:07/owner-id: 000000000000
      meta-data/network/interfaces/macs/02:00:00:00:00:07/public-ipv4s: 203.0.113.7
      meta-data/network/interfaces/macs/02:00:00:00:00:07/security-group-ids: sg-294a5000000000000|sg-318c6000000000000
      meta-data/network/interfaces/macs/02:00:00:00:00:07/security-groups: default|web
      meta-data/network/interfaces/macs/02:00:00:00:00:07/subnet-id: subnet-39ce7000000000000
      meta-data/network/interfaces/macs/02:00:00:00:00:07/subnet-ipv4-cidr-block: 10.0.1.0/24
      meta-data/network/interfaces/macs/02:00:00:00:00:07/subnet-ipv6-cidr-blocks: fd12:3456:789a:1::/64
      meta-data/network/interfaces/macs/02:00:00:00:00:07/vpc-id: vpc-42108000000000000
      meta-data/network/interfaces/macs/02:00:00:00:00:07/vpc-ipv4-cidr-block: 10.0.0.0/16
      meta-data/network/interfaces/macs/02:00:00:00:00:07/vpc-ipv4-cidr-blocks: 10.0.0.0/16
      meta-data/network/interfaces/macs/02:00:00:00:00:07/vpc-ipv6-cidr-blocks: fd12:3456:789a::/48
      meta-data/placement/availability-zone: strata-1a
      meta-data/placement/availability-zone-id: strata-1a
      meta-data/placement/region: strata-1
      meta-data/public-ipv4: 203.0.113.7
      meta-data/public-keys/0/openssh-key: ssh-ed25519 AAAAada ada@example
      meta-data/public-keys/1/openssh-key: ssh-ed25519 AAAAbob bob@example
      meta-data/reservation-id: r-00443214c74254b63
      meta-data/security-groups: default|web"
    `);
  });

  it("lists as EC2 does", () => {
    expect(read("/latest")).toBe("dynamic/\nmeta-data/\nuser-data");
    expect(read("/latest/meta-data/public-keys/")).toBe("0=ada\n1=bob");
    expect(read("/latest/meta-data/public-keys/0/")).toBe("openssh-key");
    expect(read("/latest/meta-data/placement")).toBe("availability-zone\navailability-zone-id\nregion");
    expect(read("/")).toMatch(/^1\.0\n2007-01-19\n[-\d\n]+\n2021-03-23\nlatest$/);
  });

  it.each(["/1.0", "/2009-04-04", "/2016-09-02", "/2018-09-24", "/2021-03-23", "/latest", "//latest", ""])(
    "answers below %j",
    (prefix) => {
      expect(read(`${prefix}/meta-data/instance-id`)).toBe(prefix === "" ? 404 : "i-00443214c74254b63");
    },
  );

  it("lets texts be asked for with a slash at the end, escaped, with a query, and by their whole URL", () => {
    for (const target of [
      "/latest/meta-data/placement/availability-zone/",
      "/latest/meta%2ddata/placement/availability-zone",
      "/latest/meta-data/placement/availability-zone?x=1",
      "http://169.254.169.254/latest/meta-data/placement/availability-zone",
    ]) {
      expect(read(target), target).toBe("strata-1a");
    }
    expect(read("/latest/meta-data/network/interfaces/macs/02%3A00%3A00%3A00%3A00%3A03/device-number")).toBe(
      "1",
    );
  });

  it("hands out user data as it is, or says that there is none", () => {
    expect(read("/latest/user-data")).toBe("#cloud-config\nhostname: ü\n");
    const { userData: _, ...without } = required;
    expect(read("/latest/user-data", without)).toBe(404);
    expect(read("/latest", without)).toBe("dynamic/\nmeta-data/");
    expect(read("/latest/user-data", { ...without, userData: "" })).toBe(404);
  });

  it("says who the instance is in the identity document", () => {
    expect(JSON.parse(String(read("/latest/dynamic/instance-identity/document")))).toMatchObject({
      instanceId: "i-00443214c74254b63",
      instanceType: "vm.2x1024",
      availabilityZone: "strata-1a",
      region: "strata-1",
      privateIp: "10.0.1.7",
      pendingTime: "2026-01-02T03:04:05Z",
    });
  });

  it("has no keys where there are none, and no address for the world without one", () => {
    const [card] = required.cards;
    const { publicAddress: _, ...inner } = card ?? expect.fail("no card");
    const bare = { ...required, publicKeys: [], cards: [inner] };
    expect(read("/latest/meta-data/", bare)).not.toMatch(/public-/);
    expect(read("/latest/meta-data/public-ipv4", bare)).toBe(404);
    expect(read("/latest/meta-data/public-keys/0/openssh-key", bare)).toBe(404);
  });

  it.each([
    "/latest/meta-data/constructor",
    "/latest/meta-data/__proto__",
    "/latest/meta-data/iam/security-credentials/",
    "/latest/meta-data/tags/",
    "/2010-01-01/meta-data/",
    "/latest/meta-data/../user-data",
    "/latest/meta-data/hostname/x",
  ])("has nothing at %s", (path) => {
    expect(read(path)).toBe(404);
  });
});

describe("sessions", () => {
  const put = (headers: Record<string, string>, facts = required) =>
    ask("/latest/api/token", headers, facts, "PUT");
  const ttl = "x-aws-ec2-metadata-token-ttl-seconds";

  it("begin with a PUT, and tell how long they last", () => {
    const answer = put({ [ttl]: "21600" });
    expect(answer).toMatchObject({ status: 200, headers: { [ttl]: "21600" } });
    const got = ask("/latest/meta-data/hostname", { "x-aws-ec2-metadata-token": answer.text });
    expect(got).toMatchObject({ status: 200, text: "web.demo.internal", headers: { [ttl]: "21600" } });
  });

  it.each(["0", "21601", "-1", "1.5", "", "abc", "0x10", "999999"])(
    "do not begin with a time of %j",
    (seconds) => {
      expect(put({ [ttl]: seconds }).status).toBe(400);
    },
  );

  it("do not begin without a time", () => {
    expect(put({}).status).toBe(400);
  });

  it("are required unless the instance says otherwise, and a wrong one never helps", () => {
    expect(ask("/latest/meta-data/hostname").status).toBe(401);
    expect(ask("/").status).toBe(401);
    expect(ask("/latest/meta-data/hostname", {}, optional).text).toBe("web.demo.internal");
    expect(ask("/latest/meta-data/hostname", { "x-aws-ec2-metadata-token": "" }, optional).status).toBe(401);
  });

  it("are of one instance only", () => {
    const neighbour = tokens.issue("fedcba9876543210", 60);
    expect(ask("/latest/meta-data/hostname", { "x-aws-ec2-metadata-token": neighbour }).status).toBe(401);
    expect(
      ask("/latest/meta-data/hostname", { "x-aws-ec2-metadata-token": neighbour }, optional).status,
    ).toBe(401);
  });
});

describe("refusals", () => {
  it("come first for what somebody forwards, with a valid token too", () => {
    const token = tokens.issue(required.uid, 60);
    for (const header of ["x-forwarded-for", "x-forwarded-host", "forwarded"]) {
      for (const facts of [required, optional]) {
        const headers = { [header]: "1.2.3.4", "x-aws-ec2-metadata-token": token };
        expect(ask("/latest/meta-data/", headers, facts).status).toBe(403);
        const put = { [header]: "", "x-aws-ec2-metadata-token-ttl-seconds": "60" };
        expect(ask("/latest/api/token", put, facts, "PUT").status).toBe(403);
      }
    }
  });

  it("are all there is when the service is off", () => {
    const off = testFacts({ access: { enabled: false, tokens: "optional" } });
    expect(ask("/latest/meta-data/", {}, off).status).toBe(403);
    expect(
      ask("/latest/api/token", { "x-aws-ec2-metadata-token-ttl-seconds": "60" }, off, "PUT").status,
    ).toBe(403);
  });

  it.each([
    ["GET", "/latest/api/token", 405],
    ["POST", "/latest/meta-data/", 405],
    ["PUT", "/latest/user-data", 405],
    ["DELETE", "/latest/api/token", 405],
    ["OPTIONS", "/latest/meta-data/", 405],
    ["GET", "*", 400],
    ["GET", "/%", 400],
    ["GET", "latest", 400],
  ])("of %s %s: %i", (method, target, status) => {
    expect(ask(target, {}, required, method).status).toBe(status);
  });

  it("include paths that are too long", () => {
    expect(ask(`/${"x".repeat(3000)}`, {}, optional).status).toBe(400);
  });

  it("end the connection of whoever sends a body", () => {
    for (const headers of [{ "content-length": "1025" }, { "transfer-encoding": "chunked" }]) {
      expect(ask("/latest/api/token", headers, required, "PUT")).toMatchObject({ status: 413, last: true });
    }
  });

  it("are answers, whatever is asked", () => {
    const words = fc.constantFrom(
      "/",
      "latest",
      "meta-data",
      "..",
      "%2e",
      "%",
      "\0",
      "?",
      "1.0",
      "public-keys",
      "0",
    );
    const target = fc.oneof(
      fc.string(),
      fc.array(words).map((parts) => parts.join("/")),
    );
    fc.assert(
      fc.property(target, fc.dictionary(fc.string(), fc.string()), (path, headers) => {
        expect(ask(path, headers).status).not.toBe(200);
        expect([200, 400, 404, 403, 413, 401]).toContain(ask(path, headers, optional).status);
      }),
    );
  });
});
