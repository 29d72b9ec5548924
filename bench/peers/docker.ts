import { mkdirSync } from "node:fs";
import { run } from "../../src/host/run.ts";
import { Background } from "./background.ts";
import { keepFirewall } from "./host-firewall.ts";
import type { Peer, Workload } from "./peer.ts";

/** `docker run -d` on a bridge network with a fixed address, by a dockerd of the measurement's own. */
export function dockerPeer(directory: string, workload: Workload): Peer {
  const socket = `${directory}/docker.sock`;
  const docker = (...args: string[]) => run("/usr/bin/docker", ["-H", `unix://${socket}`, ...args]);
  let daemon: Background | undefined;
  let restoreFirewall = async () => {};
  return {
    name: "docker run -d",
    async prepare() {
      mkdirSync(directory, { recursive: true });
      restoreFirewall = await keepFirewall();
      daemon = new Background(
        "/usr/sbin/dockerd",
        [
          ...[
            "-H",
            `unix://${socket}`,
            "--data-root",
            `${directory}/data`,
            "--exec-root",
            `${directory}/exec`,
          ],
          ...["--pidfile", `${directory}/dockerd.pid`, "--bip", "10.214.2.1/24"],
        ],
        `${directory}/dockerd.log`,
        { PATH: "/usr/sbin:/usr/bin:/sbin:/bin" },
      );
      await daemon.ready(() => docker("version"), 30_000);
      await docker("import", workload.tar, "bench");
      await docker("network", "create", "--subnet", "10.214.3.0/24", "bench");
    },
    async start() {
      await docker(
        ...["run", "-d", "--name", "bench", "--network", "bench", "--ip", "10.214.3.10"],
        ...["--cpus", String(workload.cpus), "--memory", `${workload.memoryMib}m`, "--pids-limit", "4096"],
        ...["bench", "/sbin/init"],
      );
      return { address: "10.214.3.10" };
    },
    async stop() {
      await docker("rm", "-f", "bench");
    },
    async dispose() {
      await docker("rm", "-f", "bench").catch(() => {});
      await docker("network", "rm", "bench").catch(() => {});
      await daemon?.stop();
      // dockerd leaves its bridge and its rules, which drop what others forward.
      await run("ip", ["link", "del", "docker0"]).catch(() => {});
      await restoreFirewall();
    },
  };
}
