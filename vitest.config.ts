import { defineConfig } from "vitest/config";

const endToEnd = { testTimeout: 300_000, hookTimeout: 600_000, globalSetup: ["e2e/global-setup.ts"] };
const sideBySide = [
  "bad-images",
  "debian-images",
  "disk-copies",
  "disk-images",
  "disks",
  "docker-driver",
  "export-images",
  "firewall",
  "images",
  "lxc-confinement",
  "lxc-driver",
  "qemu-conformance-*",
  "qemu-driver",
  "qemu-memory",
  "qemu-volumes",
  "restic",
].map((name) => `e2e/${name}.e2e.ts`);

/**
 * `unit` needs no root and no packages (unit, conformance on fakes, short simulation). The others need root and real engines:
 * `e2e` runs one file at a time, because guests share two cores and leaks are looked for on the whole host; `e2e-pairs`, before
 * it, two at a time: each looks only after its own, and mostly waits for one process.
 */
export default defineConfig({
  test: {
    projects: [
      {
        test: {
          name: "unit",
          include: ["src/**/*.test.ts", "sim/**/*.test.ts", "tools/**/*.test.ts", "bench/**/*.test.ts"],
          testTimeout: 20_000,
        },
      },
      {
        test: {
          ...endToEnd,
          name: "e2e",
          include: ["e2e/**/*.e2e.ts"],
          exclude: sideBySide,
          fileParallelism: false,
        },
      },
      {
        test: {
          ...endToEnd,
          name: "e2e-pairs",
          include: sideBySide,
          maxWorkers: 2,
          sequence: { groupOrder: 1 },
        },
      },
    ],
  },
});
