/** `strata doctor` says whether a guest would reach what it should, and who is in the way. */
import { mkdir, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";
import type { ConnectivityFacts } from "../src/host/probes/connectivity.ts";
import { run } from "../src/host/run.ts";

const box = fileURLToPath(new URL("doctor-box.ts", import.meta.url));

/** On a host of its own, with these rules (nft) of somebody else. */
async function examine(rules: string): Promise<{ facts: ConnectivityFacts; tables: string[] }> {
  const directory = await mkdtemp(join(tmpdir(), "strata-doctor-box-"));
  const groups = join(directory, "cgroup");
  await mkdir(groups);
  try {
    const { stdout } = await run(
      "unshare",
      [
        ...["--net", "--mount", "sh", "-ec"],
        'mkdir -p /run/netns; mount -t tmpfs netns /run/netns; mount --rbind /sys/fs/cgroup "$1"; mount -t sysfs sysfs /sys; shift; exec "$@"',
        ...["sh", groups, process.execPath, box, directory, groups, rules],
      ],
      { timeoutMs: 90_000 },
    );
    return JSON.parse(stdout) as { facts: ConnectivityFacts; tables: string[] };
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

const passes = { gateway: "passes", hostToGuest: "passes" };
const guard = (chain: string) => `table ip guard { chain out { ${chain}; }\n }`;

describe("the doctor", () => {
  it("finds that everything passes, and leaves nothing", async () => {
    const { facts, tables } = await examine("");
    expect(facts).toMatchObject({ ...passes, outside: "passes", blocker: "" });
    expect(tables).toEqual([]);
  });

  it("is not in the way of a firewall that drops what it does not know: guests pass it", async () => {
    const { facts } = await examine(
      "table ip filter { chain FORWARD { type filter hook forward priority 0; policy drop; }\n }",
    );
    expect(facts).toMatchObject({ ...passes, outside: "passes", blocker: "" });
  });

  it.each([
    [
      "the rule",
      guard("type filter hook prerouting priority 0; policy accept; ip daddr 10.250.61.2 drop"),
      "ip guard out: ip daddr 10.250.61.2 drop",
    ],
    [
      "the chain's policy",
      guard("type filter hook prerouting priority 0; policy drop; ip daddr != 10.250.61.2 accept"),
      "ip guard out: policy drop",
    ],
  ])("names %s that takes a guest's way out", async (_what, rules, blocker) => {
    const { facts, tables } = await examine(rules);
    expect(facts).toMatchObject({
      ...passes,
      outside: "the guest gets no answer from 10.250.61.2",
      blocker,
      server: "10.250.61.2",
    });
    expect(tables).toEqual(["table ip guard"]);
  });
});
