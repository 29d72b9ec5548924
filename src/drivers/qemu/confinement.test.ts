import { spawnSync } from "node:child_process";
import { mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { confinedCommand, explainEnd, lastWords } from "./confinement.ts";

const confinement = {
  cgroupFiles: ["/sys/fs/cgroup/strata/u/cgroup.procs", "/sys/fs/cgroup/pids/strata/u/cgroup.procs"],
  netns: "/run/netns/strata-abc",
  processUid: 1_065_536,
  groups: [],
};

/** The vector without the two fixed scripts. */
function outline(command: readonly string[]): string {
  return command.map((word) => (word.includes("\n") ? "SCRIPT" : word)).join(" ");
}

describe("confinedCommand", () => {
  it("enters the group, the namespace and the user, in this order, and leaves a keeper", () => {
    expect(outline(confinedCommand(confinement, ["qemu", "-x"]))).toBe(
      "sh -c SCRIPT strata-enter 2 /sys/fs/cgroup/strata/u/cgroup.procs /sys/fs/cgroup/pids/strata/u/cgroup.procs " +
        "nsenter --net=/run/netns/strata-abc -- " +
        "setpriv --reuid=1065536 --regid=1065536 --clear-groups --no-new-privs --bounding-set=-all --inh-caps=-all -- " +
        "sh -c SCRIPT strata-keep qemu -x",
    );
  });

  it("gives a guest without a network a namespace with nothing in it, and KVM's group where it is needed", () => {
    const command = outline(confinedCommand({ ...confinement, netns: undefined, groups: [108] }, ["qemu"]));
    expect(command).toContain(" unshare --net -- setpriv ");
    expect(command).toContain(" --groups=108 ");
  });

  it("keeps data out of the scripts", () => {
    const scripts = (word: string) =>
      confinedCommand(confinement, [word]).filter((each) => each.includes("\n"));
    expect(scripts("$(reboot)")).toEqual(scripts("qemu"));
  });

  it("is as likely as any process to be ended when the host has no memory left", () => {
    const [, , enter = ""] = confinedCommand(confinement, ["qemu"]);
    const read = ["sh", "-c", "cat /proc/self/oom_score_adj"];
    // Unprivileged: as a process that is less protected than the daemon, but in the same way.
    const more = 'echo 500 > /proc/self/oom_score_adj; exec sh "$@"';
    const args = ["-c", more, "sh", "-c", enter, "strata-enter", "0", ...read];
    const { stdout } = spawnSync("sh", args, { encoding: "utf8" });
    expect(Number(stdout)).toBeLessThanOrEqual(500);
    expect(enter).toMatch(/^echo 0 .*> \/proc\/self\/oom_score_adj$/m);
  });

  it("enters the group before the program runs, and writes down its status", () => {
    const directory = mkdtempSync(join(tmpdir(), "confinement-"));
    try {
      const group = join(directory, "cgroup.procs");
      writeFileSync(group, "");
      const command = confinedCommand({ ...confinement, cgroupFiles: [group], netns: undefined }, [
        ...["sh", "-c", 'test -s "$1" || exit 9; echo said >&2; kill -ABRT $$', "sh", group],
      ]);
      // Unprivileged: the same scripts around the same program, without what only root may do.
      const [, , enter = ""] = command;
      const keep = command.findLast((word) => word.includes("\n")) ?? "";
      const program = command.slice(command.indexOf("strata-keep") + 1);
      const status = openSync(join(directory, "status"), "w");
      const { stderr } = spawnSync(
        "sh",
        ["-c", enter, "strata-enter", "1", group, "sh", "-c", keep, "strata-keep", ...program],
        { stdio: ["ignore", "ignore", "pipe", status] },
      );
      expect(readFileSync(join(directory, "status"), "utf8")).toBe("134\n");
      expect(stderr.toString()).toBe("said\n");
    } finally {
      rmSync(directory, { recursive: true });
    }
  });
});

describe("explainEnd", () => {
  const end = { stopRequested: false, hostRestarted: false, interrupted: false, status: 0, log: "" };

  it.each([
    ["an end that was asked for", { stopRequested: true, status: 137 }, "requested", /as requested/],
    ["the guest's own power-off", {}, "poweroff", /shut itself down/],
    ["a restart of the host", { hostRestarted: true, status: undefined }, "crash", /host restarted/],
    [
      "a start that was cut short",
      { interrupted: true, status: undefined },
      "crash",
      /start was interrupted/,
    ],
    ["keeper and QEMU killed", { status: undefined }, "crash", /killed from outside/],
    ["a kernel panic", { status: 1 }, "crash", /kernel panicked/],
    ["an error of QEMU", { status: 1, log: "qemu-system-x86_64: no such disk\n" }, "crash", /no such disk/],
    ["a killed QEMU", { status: 137 }, "crash", /SIGKILL/],
    ["an abort", { status: 134, log: "Assertion failed\n" }, "crash", /SIGABRT: Assertion failed/],
    [
      "QEMU told to end by somebody else",
      { log: "2026-01-01T00:00:00.000000Z qemu-system-x86_64: terminating on signal 15 from pid 1 (init)\n" },
      "crash",
      /from outside/,
    ],
  ])("tells %s", (_name, facts, reason, message) => {
    const found = explainEnd({ ...end, ...facts });
    expect(found.reason).toBe(reason);
    expect(found.message).toMatch(message);
  });
});

describe("lastWords", () => {
  it("drops time stamps, the program's name and warnings, and is short", () => {
    const log = [
      "2026-01-01T00:00:00.000000Z qemu-system-x86_64: warning: host does not support it",
      "2026-01-01T00:00:00.000000Z qemu-system-x86_64: -device x: Device not found",
    ].join("\n");
    expect(lastWords(log)).toBe("-device x: Device not found");
    expect(lastWords("x".repeat(10_000)).length).toBeLessThanOrEqual(300);
    expect(lastWords("")).toBe("");
  });
});
