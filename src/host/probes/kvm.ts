/**
 * Does KVM work here? Proven by doing it: a stock kernel is booted under KVM to user space, with a time limit. Neither
 * the CPU's flags nor opening /dev/kvm prove anything: in nested and software-only setups both look right and no stock
 * kernel gets through its early boot.
 *
 * The answer is remembered per boot of the host, version of QEMU and kernel, so that a restart of the daemon costs
 * nothing. A no is remembered for an hour only, because a busy host can cause one.
 */
import { mkdir, mkdtemp, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import * as z from "zod";
import type { Clock } from "../../core/clock.ts";
import { hasCode, StrataError } from "../../core/errors.ts";
import { run } from "../run.ts";
import { probeInitramfs, probeMarker } from "./probe-initramfs.ts";

export interface KvmProof {
  works: boolean;
  /** How long the guest took from QEMU's start to the end of its power-off, or until we gave up. */
  ms: number;
  /** For people: what was seen. */
  reason: string;
}

export interface KvmProbeOptions {
  /** A stock x86-64 kernel image. */
  kernel: string;
  clock: Clock;
  /** Where the answer is remembered; left out, it is not. */
  cacheFile?: string;
  /** Default 10,000. Real KVM needs less than one second, nested KVM a few. */
  timeoutMs?: number;
  /** Default `qemu-system-x86_64`. */
  qemu?: string;
  signal?: AbortSignal;
}

const guestMemoryMib = 256;
const rememberFailureMs = 3_600_000;

const cacheSchema = z.object({
  key: z.string(),
  at: z.number(),
  proof: z.object({ works: z.boolean(), ms: z.number(), reason: z.string() }),
});

/**
 * Boots a guest under KVM unless the answer is known already. All it starts has ended when it returns, also when this
 * process is killed meanwhile.
 * @throws Unavailable when QEMU is not installed or the kernel cannot be read; the signal's reason when aborted.
 */
export async function probeKvm(options: KvmProbeOptions): Promise<KvmProof> {
  const { clock, cacheFile } = options;
  const key = await cacheKey(options);
  const known = cacheFile === undefined ? undefined : await readCache(cacheFile);
  if (known?.key === key && (known.proof.works || clock.now() - known.at < rememberFailureMs)) {
    return known.proof;
  }
  const proof = await bootUnderKvm(options);
  if (cacheFile !== undefined) {
    await mkdir(dirname(cacheFile), { recursive: true });
    await writeFile(cacheFile, JSON.stringify({ key, at: clock.now(), proof }), { mode: 0o600 });
  }
  return proof;
}

/** The guest's QEMU: as plain as can be, except for what is to be proven. */
export function probeArguments(kernel: string, initrd: string): string[] {
  return [
    "-nodefaults",
    "-no-user-config",
    ...["-display", "none"],
    ...["-machine", "q35"],
    ...["-accel", "kvm"],
    ...["-cpu", "host"],
    ...["-m", `${guestMemoryMib}M`],
    ...["-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"],
    ...["-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console"],
    ...["-kernel", kernel, "-initrd", initrd],
    ...["-append", "console=ttyS0 panic=-1 rdinit=/init"],
    "-no-reboot",
  ];
}

async function bootUnderKvm(options: KvmProbeOptions): Promise<KvmProof> {
  const { kernel, clock, timeoutMs = 10_000, qemu = "qemu-system-x86_64", signal } = options;
  const directory = await mkdtemp(join(tmpdir(), "strata-kvm-"));
  const errors: string[] = [];
  const startedAt = clock.monotonicMs();
  const answer = (works: boolean, reason: string): KvmProof => ({
    works,
    ms: Math.round(clock.monotonicMs() - startedAt),
    reason,
  });
  try {
    const initrd = join(directory, "initrd");
    await writeFile(initrd, probeInitramfs());
    // The parent-death signal ends QEMU with us: a kernel that hangs under KVM would turn for ever.
    const command = ["--pdeathsig", "KILL", "--", qemu, ...probeArguments(kernel, initrd)];
    const { stdout } = await run("setpriv", command, {
      timeoutMs,
      onStderrLine: (line) => errors.push(line),
      ...(signal === undefined ? {} : { signal }),
    });
    if (stdout.includes(probeMarker)) return answer(true, "a guest booted to user space");
    return answer(false, "the guest ended before it reached user space");
  } catch (error) {
    signal?.throwIfAborted();
    if (hasCode(error, "Timeout")) {
      return answer(false, `/dev/kvm opens, but a guest did not reach user space within ${timeoutMs} ms`);
    }
    if (!hasCode(error, "Internal")) throw error;
    const words = errors.slice(0, 3).join("; ").slice(0, 400);
    return answer(false, `QEMU could not run a guest under KVM: ${words || error.message}`);
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

async function cacheKey({ kernel, qemu = "qemu-system-x86_64", signal }: KvmProbeOptions): Promise<string> {
  const { stdout } = await run(qemu, ["--version"], signal === undefined ? {} : { signal });
  const bootId = await readFile("/proc/sys/kernel/random/boot_id", "utf8");
  const image = await stat(kernel).catch((cause) => {
    throw new StrataError("Unavailable", `cannot probe KVM: the kernel ${kernel} cannot be read`, { cause });
  });
  return JSON.stringify([bootId.trim(), stdout.split("\n", 1)[0], kernel, image.size, image.mtimeMs]);
}

/** A cache that is absent or unreadable is as good as none. */
async function readCache(file: string): Promise<z.infer<typeof cacheSchema> | undefined> {
  try {
    return cacheSchema.parse(JSON.parse(await readFile(file, "utf8")));
  } catch {
    return undefined;
  }
}
