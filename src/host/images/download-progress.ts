import type { Progress } from "../../kinds/kind.ts";

const reportEveryBytes = 16 * 1024 ** 2;

/** Tells how much of a download has come, not with every piece of it. */
export function downloadProgress(title: string, onProgress: (progress: Progress) => void) {
  let total = 0;
  let next = 0;
  return {
    onSize(bytes: number) {
      total = bytes;
    },
    onBytes(bytes: number) {
      if (bytes < next) return;
      next = bytes + reportEveryBytes;
      const step = `downloading ${title}`.slice(0, 200);
      onProgress(total > 0 ? { step, fraction: Math.min(1, bytes / total) } : { step });
    },
  };
}
