import { spawnSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";

const strata = fileURLToPath(new URL("strata.ts", import.meta.url));

function run(...args: string[]) {
  const env = { PATH: process.env.PATH, STRATA_IMAGE_NETWORKS: "nas.local" };
  return spawnSync(process.execPath, [strata, ...args], { env, encoding: "utf8" });
}

test("wrong settings are one clear error of any command, and nobody's who asks for help", () => {
  const { status, stderr, stdout } = run("list");
  expect(status).toBe(2);
  expect(stdout).toBe("");
  expect(stderr).toMatch(
    /^error: the daemon's settings are not valid\n {2}image-networks: .*allowed: ranges.*\n$/,
  );
  expect(run("--help").status).toBe(0);
});
