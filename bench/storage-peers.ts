/** What others do for the same purpose, on the same file system. */
import { mkdir, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { TestEngine } from "../e2e/docker-engine.ts";
import { run } from "../src/host/run.ts";

export interface Way {
  name: string;
  /** What is measured. Numbers of rounds do not repeat. */
  run(round: number): Promise<unknown>;
  /** Back to how it was, not measured. */
  undo(round: number): Promise<unknown>;
}

const write = (mib: number) => `dd if=/dev/urandom of=/data bs=1M count=${mib} conv=fsync 2>/dev/null`;
const remove = (path: string) => rm(path, { recursive: true, force: true });

/** qemu-img with a qcow2 of a volume that nobody uses, and with the image's disk. */
export function qemuWays(
  mount: string,
  raw: string,
  disk: string,
): Record<"snapshot" | "clone" | "import", Way[]> {
  const qemuImg = (...args: string[]) => run("qemu-img", args, { timeoutMs: 300_000 });
  const qcow2 = join(mount, "peer.qcow2");
  const at = (name: string, round: number) => join(mount, `${name}${round}`);
  return {
    snapshot: [
      {
        name: "qemu-img snapshot -c (detached)",
        run: (round) => qemuImg("snapshot", "-c", `s${round}`, qcow2),
        undo: (round) => qemuImg("snapshot", "-d", `s${round}`, qcow2),
      },
    ],
    clone: [
      {
        name: "qemu-img create -b (overlay)",
        run: (round) =>
          qemuImg("create", "-q", "-f", "qcow2", "-b", qcow2, "-F", "qcow2", at("overlay", round)),
        undo: (round) => remove(at("overlay", round)),
      },
      {
        name: "qemu-img convert (full copy)",
        run: (round) => qemuImg("convert", "-f", "raw", "-O", "raw", raw, at("full", round)),
        undo: (round) => remove(at("full", round)),
      },
    ],
    import: [
      {
        name: "qemu-img convert of a qcow2 (its content not looked at)",
        run: (round) => qemuImg("convert", "-f", "qcow2", "-O", "qcow2", disk, at("import", round)),
        undo: (round) => remove(at("import", round)),
      },
    ],
  };
}

/** `docker commit` of a container with so much written, and `docker import` of an archive. */
export async function dockerWays(
  directory: string,
  archive: string,
  mib: number,
): Promise<{ snapshot: Way; import: Way; end(): Promise<void> }> {
  const engine = await TestEngine.start(join(directory, "engine", "dir"));
  const docker = async (...args: string[]) =>
    (await run("docker", ["--host", `unix://${engine.socketPath}`, ...args], { timeoutMs: 300_000 })).stdout;
  await docker("import", archive, "tiny");
  await docker("run", "--name", "origin", "--network=none", "tiny", "sh", "-c", write(mib));
  return {
    snapshot: {
      name: "docker commit (ended container)",
      run: (round) => docker("commit", "origin", `s${round}`),
      undo: (round) => docker("rmi", `s${round}`),
    },
    import: {
      name: "docker import",
      run: (round) => docker("import", archive, `i${round}`),
      undo: (round) => docker("rmi", `i${round}`),
    },
    async end() {
      await engine.stop();
      await remove(join(directory, "engine"));
    },
  };
}

/** `lxc-copy` of a stopped container with so much written, with an overlay. */
export async function lxcCopy(directory: string, archive: string, mib: number): Promise<Way> {
  const top = join(directory, "lxc");
  const origin = join(top, "origin");
  const rootfs = join(origin, "rootfs");
  await mkdir(rootfs, { recursive: true });
  await run("tar", ["--extract", "--file", archive, "--directory", rootfs, "--numeric-owner"]);
  await run("dd", ["if=/dev/urandom", `of=${join(rootfs, "data")}`, "bs=1M", `count=${mib}`, "conv=fsync"]);
  const config = ["lxc.uts.name = origin", `lxc.rootfs.path = dir:${rootfs}`, "lxc.net.0.type = empty"];
  await writeFile(join(origin, "config"), `${config.join("\n")}\n`);
  return {
    name: "lxc-copy -s (overlay, stopped container)",
    run: (round) =>
      run("lxc-copy", ["-P", top, "-p", top, "-n", "origin", "-N", `s${round}`, "-s", "-B", "overlay"]),
    undo: (round) => run("lxc-destroy", ["-P", top, "-n", `s${round}`]),
  };
}
