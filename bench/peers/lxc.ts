import { mkdirSync, writeFileSync } from "node:fs";
import { run } from "../../src/host/run.ts";
import type { Peer, Workload } from "./peer.ts";

/** `lxc-start` of an unprivileged container that is configured beforehand: nothing but the start is timed. */
export function lxcPeer(directory: string, workload: Workload, idBase: number): Peer {
  // Without newuidmap in its PATH, LXC writes the id maps itself, as root may, and needs no entry in /etc/subuid.
  const env = { PATH: "/usr/sbin:/sbin" };
  const lxc = (command: string, ...args: string[]) =>
    run(`/usr/bin/${command}`, ["-P", directory, "-n", "bench", ...args], { env });
  return {
    name: "lxc-start",
    async prepare() {
      const rootfs = `${directory}/bench/rootfs`;
      mkdirSync(rootfs, { recursive: true, mode: 0o755 });
      await run("tar", ["-xf", workload.tar, "-C", rootfs, "--numeric-owner", "--exclude=./dev/*"]);
      await run("chown", ["-hR", `${idBase}:${idBase}`, rootfs]);
      await run("ip", ["link", "add", "benchlxc", "type", "bridge"]);
      await run("ip", ["addr", "add", "10.214.1.1/24", "dev", "benchlxc"]);
      await run("ip", ["link", "set", "benchlxc", "up"]);
      writeFileSync("/proc/sys/net/ipv4/neigh/benchlxc/retrans_time_ms", "50");
      writeFileSync(`${directory}/bench/config`, config(rootfs, workload, idBase));
    },
    async start() {
      await lxc("lxc-start");
      return { address: "10.214.1.10" };
    },
    async stop() {
      await lxc("lxc-stop", "-k");
      await lxc("lxc-wait", "-s", "STOPPED", "-t", "10");
    },
    async dispose() {
      await lxc("lxc-stop", "-k").catch(() => {});
      await run("ip", ["link", "del", "benchlxc"]).catch(() => {});
    },
  };
}

function config(rootfs: string, workload: Workload, idBase: number): string {
  return `lxc.include = /usr/share/lxc/config/common.conf
lxc.include = /usr/share/lxc/config/userns.conf
lxc.rootfs.path = dir:${rootfs}
lxc.idmap = u 0 ${idBase} 65536
lxc.idmap = g 0 ${idBase} 65536
lxc.apparmor.profile = unconfined
lxc.uts.name = bench
lxc.net.0.type = veth
lxc.net.0.link = benchlxc
lxc.net.0.flags = up
lxc.net.0.ipv4.address = 10.214.1.10/24
lxc.net.0.ipv4.gateway = 10.214.1.1
lxc.cgroup.memory.limit_in_bytes = ${workload.memoryMib}M
lxc.cgroup.cpu.cfs_quota_us = ${workload.cpus * 100_000}
lxc.cgroup.pids.max = 4096
lxc.cgroup2.memory.max = ${workload.memoryMib}M
lxc.cgroup2.cpu.max = ${workload.cpus * 100_000} 100000
lxc.cgroup2.pids.max = 4096
`;
}
