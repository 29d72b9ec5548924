/** What others do for the same purpose, on the same file system. */
import { mkdir, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { TestEngine } from "../e2e/docker-engine.ts";
import { run } from "../src/host/run.ts";

export type Way = (round: number) => Promise<unknown>;

const write = (mib: number) => `dd if=/dev/urandom of=/data bs=1M count=${mib} conv=fsync 2>/dev/null`;

/** `docker commit` of a container with so much written, and `docker import` of an archive. */
export async function dockerWays(
  directory: string,
  archive: string,
  mib: number,
): Promise<{ snapshots: Record<string, Way>; imports: Record<string, Way>; end(): Promise<void> }> {
  const engine = await TestEngine.start(join(directory, "engine", "dir"));
  const docker = async (...args: string[]) =>
    (await run("docker", ["--host", `unix://${engine.socketPath}`, ...args], { timeoutMs: 300_000 })).stdout;
  await docker("import", archive, "tiny");
  await docker("run", "--name", "origin", "--network=none", "tiny", "sh", "-c", write(mib));
  return {
    snapshots: { "docker commit (ended container)": (round) => docker("commit", "origin", `s${round}`) },
    imports: { "docker import": (round) => docker("import", archive, `i${round}`) },
    async end() {
      await engine.stop();
      await rm(join(directory, "engine"), { recursive: true, force: true });
    },
  };
}

/** `lxc-copy` of a stopped container with so much written, with an overlay. */
export async function lxcWays(directory: string, archive: string, mib: number): Promise<Record<string, Way>> {
  const top = join(directory, "lxc");
  const origin = join(top, "origin");
  const rootfs = join(origin, "rootfs");
  await mkdir(rootfs, { recursive: true });
  await run("tar", ["--extract", "--file", archive, "--directory", rootfs, "--numeric-owner"]);
  await run("dd", ["if=/dev/urandom", `of=${join(rootfs, "data")}`, "bs=1M", `count=${mib}`, "conv=fsync"]);
  const config = ["lxc.uts.name = origin", `lxc.rootfs.path = dir:${rootfs}`, "lxc.net.0.type = empty"];
  await writeFile(join(origin, "config"), `${config.join("\n")}\n`);
  return {
    "lxc-copy -s (overlay, stopped container)": (round) =>
      run("lxc-copy", ["-P", top, "-p", top, "-n", "origin", "-N", `s${round}`, "-s", "-B", "overlay"]),
  };
}
