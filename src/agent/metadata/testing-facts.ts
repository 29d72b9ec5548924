import type { InstanceFacts } from "./instance-facts.ts";

/** For tests. */
export function testFacts(change: Partial<InstanceFacts> = {}): InstanceFacts {
  return {
    uid: "0123456789abcdef",
    project: "demo",
    name: "web",
    hostname: "web.demo.internal",
    type: "vm",
    cpus: 2,
    memoryMib: 1024,
    imageUid: "1111222233334444",
    createdAt: "2026-01-02T03:04:05.678Z",
    access: { enabled: true, tokens: "required" },
    userData: "#cloud-config\nhostname: ü\n",
    publicKeys: [
      { name: "ada", text: "ssh-ed25519 AAAAada ada@example" },
      { name: "bob", text: "ssh-ed25519 AAAAbob bob@example" },
    ],
    cards: [
      {
        uid: "0123456789abcdef",
        macAddress: "02:00:00:00:00:07",
        ipAddress: "10.0.1.7",
        ipv6Address: "fd12:3456:789a:1::7",
        publicAddress: "203.0.113.7",
        securityGroups: [
          { name: "default", uid: "5555000000000000" },
          { name: "web", uid: "6666000000000000" },
        ],
        subnet: { uid: "7777000000000000", cidr: "10.0.1.0/24", ipv6Cidr: "fd12:3456:789a:1::/64" },
        network: { uid: "8888000000000000", cidr: "10.0.0.0/16", ipv6Cidr: "fd12:3456:789a::/48" },
      },
      {
        uid: "9999000000000000",
        macAddress: "02:00:00:00:00:03",
        ipAddress: "10.0.2.7",
        securityGroups: [],
        subnet: { uid: "aaaa000000000000", cidr: "10.0.2.0/24" },
        network: { uid: "8888000000000000", cidr: "10.0.0.0/16" },
      },
    ],
    ...change,
  };
}
