import { statfs } from "node:fs/promises";
import { availableParallelism, totalmem } from "node:os";

export interface HostCapacity {
  cpus: number;
  memoryMib: number;
  /** Of the file system that holds `directory`. */
  diskMib: number;
}

/** What this machine has for guests and itself together. `directory` must exist. */
export async function hostCapacity(directory: string): Promise<HostCapacity> {
  const { bsize, blocks } = await statfs(directory);
  return {
    cpus: availableParallelism(),
    memoryMib: Math.floor(totalmem() / 1024 ** 2),
    diskMib: Math.floor((blocks * bsize) / 1024 ** 2),
  };
}
