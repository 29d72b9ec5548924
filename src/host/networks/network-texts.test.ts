/** Golden texts: what the host's tools are given for one network. */
import { describe, expect, it } from "vitest";
import { chooseResolvFile, chooseServiceUser, renderDhcpConfig, renderDnsConfig } from "./dnsmasq-config.ts";
import { renderBridge, renderHostLinks, renderInnerLinks } from "./links.ts";
import { hostTable, planNetwork, requireNamespace, uidOfNetns, uplinkPrefix } from "./network-plan.ts";
import { renderHostRules, renderNetworkRules } from "./rules.ts";

const config = { namespace: "strata", runDir: "/run/strata" };
const request = {
  uid: "0123456789abcdef",
  cidr: "10.77.0.0/24",
  gateway: "10.77.0.1",
  domain: "demo.internal",
};
const plan = planNetwork(config, request, { hostAddress: "100.64.0.1", mtu: 1500 });
const user = { user: "dnsmasq", group: "nogroup", gid: 65534 };

describe("planNetwork", () => {
  it("derives every name from namespace and uid", () => {
    expect(plan).toMatchObject({
      netns: "strata-0123456789abcdef",
      netnsPath: "/run/netns/strata-0123456789abcdef",
      uplink: "sgax7kyfn24fqp9",
      alias: "strata: strata/0123456789abcdef",
      directory: "/run/strata/networks/0123456789abcdef",
      netmask: "255.255.255.0",
    });
    expect(plan.uplink).toHaveLength(15);
    expect(plan.uplink.startsWith(uplinkPrefix("strata"))).toBe(true);
    for (const mac of [plan.bridgeMac, plan.uplinkMac, plan.innerUplinkMac]) {
      expect(mac).toMatch(/^02(:[0-9a-f]{2}){5}$/);
    }
    expect(new Set([plan.bridgeMac, plan.uplinkMac, plan.innerUplinkMac]).size).toBe(3);
  });

  it("gives daemons and networks different names", () => {
    const other = planNetwork({ ...config, namespace: "strata2" }, request, {
      hostAddress: "100.64.0.1",
      mtu: 1500,
    });
    expect(other.uplink.slice(0, 5)).not.toBe(plan.uplink.slice(0, 5));
    expect(other.bridgeMac).not.toBe(plan.bridgeMac);
  });

  it.each([
    [{ uid: "0123456789ABCDEF" }, "uid"],
    [{ uid: "../../etc" }, "uid"],
    [{ cidr: "10.77.0.1/24" }, "range"],
    [{ cidr: "10.77.0.0/31" }, "range"],
    [{ cidr: "10.77.0.0/24\nlink del eth0" }, "range"],
    [{ gateway: "10.78.0.1" }, "gateway"],
    [{ gateway: "10.77.0.0" }, "gateway"],
    [{ domain: "demo.internal\nuser=root" }, "domain"],
    [{ domain: "demo/internal" }, "domain"],
    [{ domain: "" }, "domain"],
  ])("refuses %j", (change, what) => {
    expect(() =>
      planNetwork(config, { ...request, ...change }, { hostAddress: "100.64.0.1", mtu: 1500 }),
    ).toThrow(expect.objectContaining({ code: "Invalid", message: expect.stringContaining(what) }));
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
    expect(renderHostLinks(plan, needs)).toBe(
      `netns add strata-0123456789abcdef
link add name ${plan.uplink} address ${plan.uplinkMac} mtu 1500 type veth peer name uplink address ${plan.innerUplinkMac} mtu 1500 netns strata-0123456789abcdef
address replace 100.64.0.1/32 dev ${plan.uplink}
link set dev ${plan.uplink} mtu 1500 alias "strata: strata/0123456789abcdef" up
route replace 10.77.0.0/24 via 10.77.0.1 dev ${plan.uplink} onlink src 100.64.0.1
`,
    );
    expect(renderBridge(plan)).toBe(
      `link add name br0 address ${plan.bridgeMac} mtu 1500 type bridge stp_state 0 forward_delay 0 mcast_snooping 0
`,
    );
    expect(renderInnerLinks(plan, [])).toBe(`link set dev lo up
address replace 10.77.0.1/24 dev br0
link set dev br0 mtu 1500 up
link set dev uplink mtu 1500 up
route replace 100.64.0.1/32 dev uplink scope link src 10.77.0.1
route replace default via 100.64.0.1 dev uplink onlink src 10.77.0.1
`);
  });

  it("give a namespace back its name, and ports their bridge", () => {
    const needs = { netns: { attach: 42 }, staleUplink: false, uplink: false } as const;
    expect(renderHostLinks(plan, needs).split("\n")[0]).toBe("netns attach strata-0123456789abcdef 42");
    expect(renderInnerLinks(plan, ["port1"])).toContain("link set dev port1 master br0 up\n");
  });

  it("take a stale uplink away first", () => {
    const needs = { netns: "make", staleUplink: true, uplink: true } as const;
    expect(renderHostLinks(plan, needs).split("\n")[0]).toBe(`link del dev ${plan.uplink}`);
  });
});

describe("rules", () => {
  it("of a network", () => {
    expect(renderNetworkRules(plan)).toMatchInlineSnapshot(`
      "table inet strata {}
      delete table inet strata
      table inet strata {
        chain input {
          type filter hook input priority filter; policy drop;
          ct state established,related accept
          iifname "lo" accept
          iifname "br0" udp dport { 53, 67 } accept
          iifname "br0" tcp dport 53 accept
          iifname "br0" icmp type echo-request accept
          iifname "uplink" ip saddr 100.64.0.1 accept
        }
        chain forward {
          type filter hook forward priority filter; policy drop;
          iifname "br0" oifname "br0" accept
          ct state established,related accept
          iifname "br0" oifname "uplink" ip saddr 10.77.0.0/24 accept
          iifname "uplink" oifname "br0" ip saddr 100.64.0.1 accept
        }
      }
      table bridge strata {}
      delete table bridge strata
      table bridge strata {
        chain from-ports {
          type filter hook prerouting priority -300; policy accept;
          ether saddr 02:6f:d0:87:39:7a drop
          arp saddr ip 10.77.0.1 drop
          ip saddr 10.77.0.1 drop
          udp sport 67 udp dport 68 drop
          icmpv6 type nd-router-advert drop
        }
      }
      "
    `);
  });

  it("of the host", () => {
    expect(hostTable("strata")).toBe("strata-networks");
    expect(renderHostRules("strata")).toMatchInlineSnapshot(`
      "table inet strata-networks {}
      delete table inet strata-networks
      table inet strata-networks {
        chain forward {
          type filter hook forward priority filter - 10; policy accept;
          oifname "sgax7*" ct state established,related accept
          oifname "sgax7*" drop
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
          iifname "sgax7*" oifname != "sgax7*" masquerade
        }
      }
      "
    `);
  });
});

describe("dnsmasq", () => {
  it("answers names", () => {
    expect(renderDnsConfig(plan, user, "/etc/resolv.conf")).toMatchInlineSnapshot(`
      "listen-address=10.77.0.1
      bind-interfaces
      no-hosts
      hostsdir=/run/strata/networks/0123456789abcdef/hosts
      expand-hosts
      domain=demo.internal
      local=/demo.internal/
      domain-needed
      bogus-priv
      resolv-file=/etc/resolv.conf
      cache-size=2000
      dns-forward-max=1000
      user=dnsmasq
      group=nogroup
      pid-file=/run/strata/networks/0123456789abcdef/dns.pid
      log-async=20
      "
    `);
    expect(renderDnsConfig(plan, user, undefined)).toContain("\nno-resolv\n");
  });

  it("hands out reserved addresses only", () => {
    expect(renderDhcpConfig(plan, user)).toMatchInlineSnapshot(`
      "port=0
      interface=br0
      except-interface=lo
      bind-interfaces
      dhcp-range=10.77.0.0,static,255.255.255.0,3600
      dhcp-hostsdir=/run/strata/networks/0123456789abcdef/dhcp
      dhcp-ignore=tag:!known
      dhcp-ignore-names
      dhcp-ignore-clid
      dhcp-authoritative
      dhcp-lease-max=256
      leasefile-ro
      no-ping
      domain=demo.internal
      dhcp-option=option:router,10.77.0.1
      dhcp-option=option:dns-server,10.77.0.1
      dhcp-option=option:domain-search,demo.internal
      dhcp-option=option:mtu,1500
      quiet-dhcp
      user=dnsmasq
      group=nogroup
      pid-file=/run/strata/networks/0123456789abcdef/dhcp.pid
      log-async=20
      "
    `);
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
