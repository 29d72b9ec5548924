/** Golden texts: what the host's tools are given for one network. */
import { describe, expect, it } from "vitest";
import {
  chooseResolvFile,
  chooseServiceUser,
  renderDhcpConfig,
  renderDnsConfig,
  upstreamServers,
} from "./dnsmasq-config.ts";
import { renderHostRules } from "./host-table.ts";
import { renderBridge, renderHostLinks, renderHostRoutes } from "./links.ts";
import { hostTable, planNetwork, requireNamespace, uidOfNetns, uplinkPrefix } from "./network-plan.ts";
import type { NetworkRequest, SubnetRequest } from "./networks.ts";
import { planSysctls } from "./sysctls.ts";
import { uplinkPair } from "./uplink-pair.ts";

const config = { namespace: "strata", runDir: "/run/strata" };
const facts = { mtu: 1500, ipv6: true, outside6: true };
const subnet: SubnetRequest = {
  name: "front",
  index: 0,
  cidr: "10.77.0.0/24",
  gateway: "10.77.0.1",
  ipv6Cidr: "fd00:77:0:0::/64",
  ipv6Gateway: "fd00:77::1",
};
const request: NetworkRequest = {
  uid: "0123456789abcdef",
  cidr: "10.77.0.0/16",
  ipv6Cidr: "fd00:77::/48",
  domain: "demo.internal",
  hostRoute: true,
  internet: true,
  subnets: [subnet, { name: "back", index: 7, cidr: "10.77.7.0/28", gateway: "10.77.7.1" }],
  peerings: [],
};
const plan = planNetwork(config, request, facts);
const pair = uplinkPair(1);
const user = { user: "dnsmasq", group: "nogroup", gid: 65534 };

describe("planNetwork", () => {
  it("derives every name from namespace and uid", () => {
    expect(plan).toMatchObject({
      netns: "strata-0123456789abcdef",
      netnsPath: "/run/netns/strata-0123456789abcdef",
      uplink: "sgax7kyfn24fqp9",
      alias: "strata: strata/0123456789abcdef",
      directory: "/run/strata/networks/0123456789abcdef",
    });
    expect(plan.uplink).toHaveLength(15);
    expect(plan.uplink.startsWith(uplinkPrefix("strata"))).toBe(true);
    const macs = [plan.uplinkMac, plan.innerUplinkMac, ...plan.subnets.map((one) => one.macAddress)];
    for (const mac of macs) expect(mac).toMatch(/^02(:[0-9a-f]{2}){5}$/);
    expect(new Set(macs).size).toBe(4);
  });

  it("brings ranges to the form in which the kernel lists them", () => {
    expect(plan.subnets[0]?.v6?.cidr).toBe("fd00:77::/64");
    expect(plan.subnets.map(({ bridge }) => bridge)).toEqual(["br0", "br7"]);
  });

  it("leaves IPv6 out where the host has none", () => {
    const without = planNetwork(config, request, { ...facts, ipv6: false });
    expect(without.ipv6Cidr).toBeUndefined();
    expect(without.subnets[0]?.v6).toBeUndefined();
    expect(without.outside6).toBe(false);
  });

  it("gives daemons and networks different names", () => {
    const other = planNetwork({ ...config, namespace: "strata2" }, request, facts);
    expect(other.uplink.slice(0, 5)).not.toBe(plan.uplink.slice(0, 5));
    expect(other.subnets[0]?.macAddress).not.toBe(plan.subnets[0]?.macAddress);
  });

  it("names a peering's link alike on both sides, and its ends differently", () => {
    const peering = { uid: "00000000000000p1", ranges: ["10.9.0.0/16"] };
    const uid = "0000000000000002";
    const [a] = planNetwork(config, { ...request, peerings: [{ ...peering, network: uid }] }, facts).peerings;
    const [b] = planNetwork(
      config,
      { ...request, uid, peerings: [{ ...peering, network: request.uid }] },
      facts,
    ).peerings;
    expect(a?.link).toBe(b?.link);
    expect(a?.macAddress).toBe(b?.peerMacAddress);
    expect(a?.peerMacAddress).toBe(b?.macAddress);
  });

  const withSubnet = (change: Partial<SubnetRequest>) => ({ subnets: [{ ...subnet, ...change }] });
  const peering = { uid: "00000000000000p1", network: "0000000000000002", ranges: ["10.9.0.0/16"] };
  it.each<[Partial<NetworkRequest>, string]>([
    [{ uid: "0123456789ABCDEF" }, "uid"],
    [{ uid: "../../etc" }, "uid"],
    [{ cidr: "10.77.0.1/24" }, "range"],
    [{ cidr: "10.77.0.0/31" }, "range"],
    [{ cidr: "fd00::/48" }, "range"],
    [{ cidr: "10.77.0.0/24\nlink del eth0" }, "range"],
    [{ ipv6Cidr: "10.0.0.0/8" }, "range"],
    [withSubnet({ cidr: "10.78.0.0/24" }), "subnet"],
    [withSubnet({ cidr: "10.0.0.0/8" }), "subnet"],
    [withSubnet({ gateway: "10.78.0.1" }), "gateway"],
    [withSubnet({ gateway: "10.77.0.0" }), "gateway"],
    [withSubnet({ ipv6Gateway: "fe80::1%eth0" }), "gateway"],
    [withSubnet({ index: -1 }), "subnet number"],
    [withSubnet({ index: 1.5 }), "subnet number"],
    [{ subnets: [subnet, subnet] }, "subnets"],
    [withSubnet({ routes: [{ destination: "0.0.0.0/0 dev eth0", target: "none" }] }), "route"],
    [{ peerings: [{ ...peering, uid: "x y" }] }, "peering"],
    [{ peerings: [{ ...peering, network: request.uid }] }, "peering"],
    [{ peerings: [{ ...peering, ranges: ["10.9.0.1/16"] }] }, "peering"],
    [{ mtu: 100 }, "MTU"],
    [{ domain: "demo.internal\nuser=root" }, "domain"],
    [{ domain: "demo/internal" }, "domain"],
    [{ domain: "" }, "domain"],
  ])("refuses %j", (change, what) => {
    expect(() => planNetwork(config, { ...request, ...change }, facts)).toThrow(
      expect.objectContaining({ code: "Invalid", message: expect.stringContaining(what) }),
    );
  });

  it("knows its own namespaces' names among others", () => {
    expect(uidOfNetns("strata", "strata-0123456789abcdef")).toBe("0123456789abcdef");
    expect(uidOfNetns("strata", "strata-x-0123456789abcdef")).toBeUndefined();
    expect(uidOfNetns("strata", "strata-short")).toBeUndefined();
    expect(uidOfNetns("strata", "docker")).toBeUndefined();
  });

  it.each(["", "9lives", "Strata", "a".repeat(17), "a b", "../x"])("refuses the namespace %j", (name) => {
    expect(() => requireNamespace(name)).toThrow(/cannot name a daemon/);
  });
});

describe("links", () => {
  it("make a network from nothing", () => {
    const needs = { netns: "make", staleUplink: false, uplink: true } as const;
    expect(renderHostLinks(plan, needs)).toMatchInlineSnapshot(`
      "netns add strata-0123456789abcdef
      link add name sgax7kyfn24fqp9 address 02:ad:f1:f8:2a:b9 mtu 1500 type veth peer name uplink address 02:4e:fb:0a:24:0e mtu 1500 netns strata-0123456789abcdef
      "
    `);
    expect(renderHostRoutes(plan, pair)).toMatchInlineSnapshot(`
      "address replace 100.64.0.2/31 dev sgax7kyfn24fqp9
      address replace fd73:7472:6174::2/127 dev sgax7kyfn24fqp9 nodad
      link set dev sgax7kyfn24fqp9 mtu 1500 alias "strata: strata/0123456789abcdef" up
      route replace 10.77.0.0/16 via 100.64.0.3 dev sgax7kyfn24fqp9 onlink src 100.64.0.2 table 100000001
      route replace 10.77.0.0/16 via 100.64.0.3 dev sgax7kyfn24fqp9 onlink src 100.64.0.2
      route replace fd00:77::/48 via fd73:7472:6174::3 dev sgax7kyfn24fqp9 onlink src fd73:7472:6174::2
      "
    `);
    expect(plan.subnets[0] && renderBridge(plan.subnets[0], plan.mtu)).toMatchInlineSnapshot(`
      [
        "link add name br0 address 02:1e:14:d7:c8:1e mtu 1500 type bridge stp_state 0 forward_delay 0 mcast_snooping 0",
        "link set dev br0 addrgenmode none",
      ]
    `);
  });

  it("leave the host's main table alone without a host route", () => {
    expect(renderHostRoutes({ ...plan, hostRoute: false }, pair).match(/^route .*$/gm)).toEqual([
      `route replace 10.77.0.0/16 via 100.64.0.3 dev ${plan.uplink} onlink src 100.64.0.2 table 100000001`,
    ]);
  });

  it("give a namespace back its name", () => {
    const needs = { netns: { attach: 42 }, staleUplink: false, uplink: false } as const;
    expect(renderHostLinks(plan, needs)).toBe("netns attach strata-0123456789abcdef 42\n");
  });

  it("take a stale uplink away first", () => {
    const needs = { netns: "make", staleUplink: true, uplink: true } as const;
    expect(renderHostLinks(plan, needs).split("\n")[0]).toBe(`link del dev ${plan.uplink}`);
  });
});

it("settings of the kernel inside", () => {
  const settings = [...planSysctls({ ...plan, subnets: plan.subnets.slice(0, 1) })];
  expect(settings.map((setting) => setting.join(" = "))).toMatchInlineSnapshot(`
    [
      "ipv4/ip_forward = 1",
      "ipv4/ip_early_demux = 0",
      "ipv4/conf/all/rp_filter = 0",
      "ipv4/conf/all/send_redirects = 0",
      "ipv4/conf/default/rp_filter = 0",
      "ipv4/conf/default/send_redirects = 0",
      "ipv4/conf/uplink/rp_filter = 0",
      "ipv4/conf/uplink/send_redirects = 0",
      "ipv4/conf/br0/rp_filter = 0",
      "ipv4/conf/br0/send_redirects = 0",
      "ipv4/conf/br0/accept_local = 1",
      "ipv4/conf/br0/proxy_arp_pvlan = 1",
      "ipv4/neigh/br0/proxy_delay = 0",
      "ipv4/neigh/br0/retrans_time_ms = 40",
      "ipv6/conf/all/disable_ipv6 = 0",
      "ipv6/conf/all/forwarding = 1",
      "ipv6/conf/default/disable_ipv6 = 0",
      "ipv6/conf/default/accept_ra = 0",
      "ipv6/conf/default/accept_dad = 0",
      "ipv6/conf/uplink/disable_ipv6 = 0",
      "ipv6/conf/uplink/accept_ra = 0",
      "ipv6/conf/uplink/accept_dad = 0",
      "ipv6/conf/br0/disable_ipv6 = 0",
      "ipv6/conf/br0/accept_ra = 0",
      "ipv6/conf/br0/accept_dad = 0",
    ]
  `);
});

it("rules of the host", () => {
  expect(hostTable("strata")).toBe("strata-networks");
  expect(renderHostRules("strata")).toMatchInlineSnapshot(`
    "table inet strata-networks {}
    delete table inet strata-networks
    table inet strata-networks {
      chain forward {
        type filter hook forward priority filter - 10; policy accept;
        iifname "sgax7*" oifname "docker0" ct status & dnat != dnat ct state new drop
        iifname "sgax7*" oifname "br-*" ct status & dnat != dnat ct state new drop
        iifname "sgax7*" oifname "docker_gwbridge" ct status & dnat != dnat ct state new drop
        iifname "sgax7*" oifname "virbr*" ct status & dnat != dnat ct state new drop
        iifname "sgax7*" oifname "lxcbr*" ct status & dnat != dnat ct state new drop
        iifname "sgax7*" oifname "lxdbr*" ct status & dnat != dnat ct state new drop
        iifname "sgax7*" oifname "incusbr*" ct status & dnat != dnat ct state new drop
        iifname "sgax7*" oifname "cni*" ct status & dnat != dnat ct state new drop
      }
      chain postrouting {
        type nat hook postrouting priority srcnat; policy accept;
        iifname "sgax7*" oifname != "sgax7*" ip saddr 100.64.0.0/11 masquerade
        iifname "sgax7*" oifname != "sgax7*" ip6 saddr fd73:7472:6174::/48 masquerade
      }
    }
    "
  `);
});

describe("dnsmasq", () => {
  it("answers names", () => {
    expect(renderDnsConfig(plan, user, ["192.0.2.53"])).toMatchInlineSnapshot(`
      "listen-address=10.77.0.1
      listen-address=fd00:77::1
      listen-address=10.77.7.1
      bind-interfaces
      no-hosts
      hostsdir=/run/strata/networks/0123456789abcdef/hosts
      expand-hosts
      domain=demo.internal
      local=/demo.internal/
      domain-needed
      bogus-priv
      no-resolv
      server=192.0.2.53@uplink
      cache-size=2000
      dns-forward-max=1000
      user=dnsmasq
      group=nogroup
      pid-file=/run/strata/networks/0123456789abcdef/dns.pid
      log-async=20
      "
    `);
    expect(renderDnsConfig(plan, user, [])).not.toContain("server=");
  });

  it("hands out reserved addresses only", () => {
    expect(renderDhcpConfig(plan, user)).toMatchInlineSnapshot(`
      "port=0
      interface=br0
      dhcp-range=10.77.0.0,static,255.255.255.0,3600
      dhcp-option=tag:br0,option:router,10.77.0.1
      dhcp-option=tag:br0,option:dns-server,10.77.0.1
      dhcp-range=fd00:77::,static,off-link,64,3600
      ra-param=br0,mtu:1500,600,3600
      dhcp-option=tag:br0,option6:dns-server,[fd00:77::1]
      interface=br7
      dhcp-range=10.77.7.0,static,255.255.255.240,3600
      dhcp-option=tag:br7,option:router,10.77.7.1
      dhcp-option=tag:br7,option:dns-server,10.77.7.1
      except-interface=lo
      bind-interfaces
      enable-ra
      dhcp-option=option6:domain-search,demo.internal
      dhcp-hostsdir=/run/strata/networks/0123456789abcdef/dhcp
      dhcp-ignore=tag:!known
      dhcp-ignore-names
      dhcp-ignore-clid
      dhcp-authoritative
      dhcp-lease-max=544
      leasefile-ro
      no-ping
      domain=demo.internal
      dhcp-option=option:domain-search,demo.internal
      dhcp-option=option:mtu,1500
      quiet-dhcp
      quiet-dhcp6
      quiet-ra
      user=dnsmasq
      group=nogroup
      pid-file=/run/strata/networks/0123456789abcdef/dhcp.pid
      log-async=20
      "
    `);
  });

  it("asks the servers of a resolv.conf, but none on the host's loopback", () => {
    const text =
      "search x\nnameserver 192.0.2.1\nnameserver 127.0.0.53\nnameserver 2001:DB8::1\nnameserver ::1\n";
    expect(upstreamServers(text, { ipv6: false })).toEqual(["192.0.2.1"]);
    expect(upstreamServers(text, { ipv6: true })).toEqual(["192.0.2.1", "2001:db8::1"]);
    expect(upstreamServers("nameserver 192.0.2.1 # x\nnameserver 192.0.2.1\n", { ipv6: true })).toEqual([
      "192.0.2.1",
    ]);
    expect(upstreamServers("nameserver 192.0.2.1,evil\n", { ipv6: true })).toEqual([]);
  });

  it("asks servers that a network's namespace can reach", () => {
    const stub = { path: "/etc/resolv.conf", text: "# stub\nnameserver 127.0.0.53\noptions edns0\n" };
    const real = { path: "/run/systemd/resolve/resolv.conf", text: "nameserver 192.0.2.1\n" };
    const ipv6 = { path: "/v6", text: "nameserver fe80::1%eth0\nnameserver ::1\n" };
    expect(chooseResolvFile([stub, real])).toBe(real.path);
    expect(chooseResolvFile([{ ...real, path: "/etc/resolv.conf" }, real])).toBe("/etc/resolv.conf");
    expect(chooseResolvFile([stub, ipv6, { path: "/none", text: "" }])).toBeUndefined();
    expect(chooseResolvFile([{ path: "/c", text: "#nameserver 192.0.2.1\n" }])).toBeUndefined();
  });

  it("runs as its own user, else as nobody", () => {
    const group = "root:x:0:\nnogroup:x:65534:\nnobody:x:99:\n";
    const nobody = "root:x:0:0::/root:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n";
    const own = `${nobody}dnsmasq:x:999:65534::/:/bin/false\n`;
    expect(chooseServiceUser(own, group)).toEqual({ user: "dnsmasq", group: "nogroup", gid: 65534 });
    expect(chooseServiceUser(nobody, group)).toEqual({ user: "nobody", group: "nogroup", gid: 65534 });
    expect(chooseServiceUser("root:x:0:0::/:/bin/sh\n", group)).toBeUndefined();
  });
});
