/** Mounts of this host: what is mounted where, and mounting. */
import { readFile } from "node:fs/promises";
import type { Clock } from "../../core/clock.ts";
import { StrataError } from "../../core/errors.ts";
import { run } from "../run.ts";

const busyWaitMs = 5_000;
const busyPollMs = 50;

/** All mount points of this process's namespace, from the bytes of /proc/PID/mountinfo (proc(5)) as latin1. */
export function parseMountPoints(mountinfo: string): Set<string> {
  const points = mountinfo.split("\n").map((line) => line.split(" ")[4]);
  const bytes = (escapedPoint: string) =>
    escapedPoint.replace(/\\(\d{3})/g, (_, code: string) => String.fromCharCode(Number.parseInt(code, 8)));
  return new Set(
    points
      .filter((point) => point !== undefined)
      .map((point) => Buffer.from(bytes(point), "latin1").toString("utf8")),
  );
}

export async function mountPoints(): Promise<Set<string>> {
  return parseMountPoints(await readFile("/proc/self/mountinfo", "latin1"));
}

/** Mounts the file system in a file. The loop device goes away with the mount. */
export async function mountFile(file: string, target: string, signal: AbortSignal): Promise<void> {
  // Guests' set-user-id programs work, device nodes do not; freed blocks go back to the host.
  await run("mount", ["-t", "ext4", "-o", "loop,nodev,noatime,discard", file, target], { signal });
}

/** The same for looking only; a journal is not replayed, so it must have been frozen or unmounted. */
export async function mountFileReadOnly(file: string, target: string, signal: AbortSignal): Promise<void> {
  await run("mount", ["-t", "ext4", "-o", "loop,ro,noload,nodev,nosuid,noexec", file, target], { signal });
}

/** Trees one over the other, the uppermost first, for looking only. */
export async function mountLayers(
  layers: readonly string[],
  target: string,
  signal: AbortSignal,
): Promise<void> {
  const options = `ro,nodev,nosuid,noexec,lowerdir=${layers.map(escaped).join(":")}`;
  await run("mount", ["-t", "overlay", "-o", options, "overlay", target], { signal });
}

export interface Overlay {
  lower: string;
  upper: string;
  work: string;
  target: string;
}

export async function mountOverlay(
  { lower, upper, work, target }: Overlay,
  signal: AbortSignal,
): Promise<void> {
  const options = `nodev,noatime,lowerdir=${escaped(lower)},upperdir=${escaped(upper)},workdir=${escaped(work)}`;
  await run("mount", ["-t", "overlay", "-o", options, "overlay", target], { signal });
}

/** overlayfs splits layers at colons, and mount options at commas. */
function escaped(path: string): string {
  return path.replace(/[\\:,]/g, (character) => `\\${character}`);
}

/**
 * Unmounts all that is mounted at `target`; nothing mounted is success. Waits a little for processes that are just
 * ending. @throws Unavailable when it stays in use.
 */
export async function unmount(target: string, clock: Clock, signal: AbortSignal): Promise<void> {
  for (const deadline = clock.monotonicMs() + busyWaitMs; (await mountPoints()).has(target); ) {
    const { status, stderr } = await run("umount", [target], { signal, expected: [0, 1, 32] });
    if (status === 0) continue;
    if (clock.monotonicMs() >= deadline) {
      throw new StrataError("Unavailable", "the disk is still in use; is its guest really stopped?", {
        detail: `${target}: ${stderr.trim()}`,
      });
    }
    await clock.sleep(busyPollMs, signal);
  }
}
