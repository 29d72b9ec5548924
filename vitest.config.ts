import { defineConfig } from "vitest/config";

/**
 * Two projects: `unit` needs no root and no packages (unit, conformance on fakes, short simulation);
 * `e2e` needs root and real engines and runs one file at a time, because guests share two cores.
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
          name: "e2e",
          include: ["e2e/**/*.e2e.ts"],
          testTimeout: 300_000,
          hookTimeout: 600_000,
          fileParallelism: false,
          globalSetup: ["e2e/global-setup.ts"],
        },
      },
    ],
  },
});
