import type { CgroupLimits } from "../../host/cgroups.ts";
import type { GuestSpec } from "../driver.ts";
import { type Accelerator, translationCacheMib } from "./command-line.ts";

/**
 * Of QEMU itself: code and data (60 MiB measured), qcow2 metadata caches (at most 32 MiB), buffers of disks, network and
 * sockets, and a share of the page cache for the image's base, which would otherwise be reread all the time.
 */
const fixedOverheadMib = 160;
/** Stacks and state of a virtual CPU's thread. */
const overheadMibPerCpu = 8;
/** The host's page tables for the guest's memory, twice under KVM (the guest's second level): 2 × 1/512, doubled. */
const guestMemoryShare = 1 / 128;

/**
 * What a guest's control group may use. QEMU's memory is the guest's plus an overhead, so that a guest that uses all it
 * was given is not killed, and one that breaks out of its own limits is.
 */
export function cgroupLimits(
  guest: Pick<GuestSpec, "cpus" | "memoryMib">,
  accelerator: Accelerator,
): CgroupLimits {
  const overheadMib =
    fixedOverheadMib +
    guest.cpus * overheadMibPerCpu +
    Math.ceil(guest.memoryMib * guestMemoryShare) +
    (accelerator.type === "tcg" ? tcgOverheadMib(guest.memoryMib) : 0);
  return {
    cpus: guest.cpus,
    memoryMib: guest.memoryMib + overheadMib,
    // Virtual CPUs, I/O workers (64 a thread pool), the keeper.
    processes: 160 + guest.cpus,
  };
}

/** The cache of translated code, its bookkeeping (as much again), and TLBs and dirty maps that grow with memory. */
function tcgOverheadMib(memoryMib: number): number {
  return 2 * translationCacheMib + Math.ceil(memoryMib / 64);
}
