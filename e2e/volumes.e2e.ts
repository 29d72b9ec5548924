/**
 * Volumes by the command line, on a real container and a real virtual machine with stock Debian: the same bytes go from one
 * to the other while both run, grow under a writer, and survive kill -9 of the daemon and reboots from inside.
 */
import { afterAll, beforeAll, expect, it } from "vitest";
import { imageKind } from "../src/kinds/image.ts";
import { instanceKind } from "../src/kinds/instance.ts";
import { type Volume, volumeKind } from "../src/kinds/volume.ts";
import { findLeaks, type Snapshot, takeSnapshot } from "./leaks.ts";
import { TestDaemon, until } from "./test-daemon.ts";

const project = "default";
let before: Snapshot;
let daemon: TestDaemon;

beforeAll(async () => {
  before = await takeSnapshot();
  daemon = await TestDaemon.create();
  await daemon.start();
  const source = { type: "debian" as const, suite: "bookworm" as const };
  await daemon.client.create(imageKind, { project, name: "debian", spec: { source } });
  const common = { image: "debian", diskMib: 2048, memoryMib: 512 };
  for (const [name, type] of [
    ["vm", "vm"],
    ["box", "container"],
  ] as const) {
    await daemon.client.create(instanceKind, { project, name, spec: { ...common, type } });
  }
  await until("the image is ready", async () => (await image()).status.state === "ready", 900_000, 500);
  for (const name of ["box", "vm"]) await booted(name);
}, 1_200_000);

afterAll(async () => {
  for (const { metadata, spec } of (await daemon?.client.list(volumeKind, { project }))?.items ?? []) {
    if (spec.role === "root") continue;
    await daemon.strata(["volume", "detach", metadata.name, "-p", project]);
    await daemon.strata(["volume", "delete", metadata.name, "-p", project, "--yes"]);
  }
  await daemon?.dispose();
  expect(await findLeaks(before, daemon.marks)).toEqual([]);
}, 300_000);

const image = () => daemon.client.require(imageKind, { project, name: "debian" });
const volume = (name: string): Promise<Volume> => daemon.client.require(volumeKind, { project, name });

function strata(...args: string[]) {
  return daemon.ok([...args, "-p", project], { timeoutMs: 120_000 });
}

async function inside(name: string, script: string): Promise<string> {
  const args = ["exec", "-p", project, name, "--", "sh", "-ec", script];
  const { status, stdout, stderr } = await daemon.strata(args, { timeoutMs: 120_000 });
  expect({ status, stderr }).toMatchObject({ status: 0 });
  return stdout.trim();
}

async function booted(name: string): Promise<void> {
  const up = ["exec", "-p", project, name, "--", "systemctl", "is-system-running", "--wait"];
  await until(
    `${name} has booted`,
    async () => /running|degraded/.test((await daemon.strata(up, { timeoutMs: 120_000 })).stdout),
    240_000,
    500,
  );
}

it("goes from a running container to a running virtual machine and back, with what each wrote", async () => {
  await strata("volume", "create", "records", "--size", "512MiB");
  await strata("volume", "attach", "records", "box", "--path", "/srv/records");
  await inside("box", "echo from the container > /srv/records/log; sync -f /srv/records");
  expect(await inside("box", "stat -c %u:%g /srv/records /srv/records/log")).toBe("0:0\n0:0");
  await strata("volume", "detach", "records");
  expect(await inside("box", "ls /srv/records")).toBe("");

  await strata("volume", "attach", "records", "vm");
  const { device = "" } = (await volume("records")).status;
  await inside("vm", `udevadm settle; mkdir -p /srv/records; mount ${device} /srv/records`);
  expect(await inside("vm", "cat /srv/records/log; stat -c %u:%g /srv/records/log")).toBe(
    "from the container\n0:0",
  );
  await inside("vm", "echo from the virtual machine >> /srv/records/log; sync -f /srv/records");

  await daemon.strata(["volume", "detach", "records", "-p", project, "--no-wait"]);
  await until(
    "it is said why it stays",
    async () => /mounted at \/srv\/records/.test((await volume("records")).status.message),
    60_000,
    200,
  );
  await inside("vm", "umount /srv/records");
  await until("it is free", async () => (await volume("records")).status.state === "available", 90_000, 200);
  expect(await inside("vm", `test -e ${device} || echo gone`)).toBe("gone");

  await strata("volume", "attach", "records", "box");
  expect(await inside("box", "cat /srv/records/log")).toBe("from the container\nfrom the virtual machine");
});

it("is still there after kill -9 of the daemon and a reboot from inside", async () => {
  await daemon.kill();
  expect(await volume("records").catch(() => "no daemon")).toBe("no daemon");
  await daemon.start();
  await until(
    "it is as it was",
    async () => (await volume("records")).status.state === "attached",
    30_000,
    100,
  );
  expect(await inside("box", "wc -l < /srv/records/log")).toBe("2");
  const before = await inside("box", "cat /proc/sys/kernel/random/boot_id; stat -c %Y /proc/1");
  await daemon.strata(["exec", "-p", project, "box", "--", "reboot"], { timeoutMs: 30_000 });
  await until(
    "it has rebooted",
    async () => {
      const { status, stdout } = await daemon.strata([
        "exec",
        "-p",
        project,
        "box",
        "--",
        "sh",
        "-c",
        "cat /proc/sys/kernel/random/boot_id; stat -c %Y /proc/1",
      ]);
      return status === 0 && stdout.trim() !== before;
    },
    60_000,
    200,
  );
  await booted("box");
  expect(await inside("box", "wc -l < /srv/records/log")).toBe("2");
});

it("grows under a writer, every row of which is there afterwards", async () => {
  await strata("volume", "create", "rows", "--size", "320MiB", "--file-system", "xfs", "--instance", "box");
  await until("it is attached", async () => (await volume("rows")).status.state === "attached", 30_000, 100);
  const writer = inside(
    "box",
    `cd /mnt/rows; for row in $(seq 300); do echo "$row $(echo $row | sha256sum)" >> rows; sync rows; echo $row; done`,
  );
  await strata("volume", "grow", "rows", "1GiB");
  expect((await volume("rows")).status.sizeMib).toBe(1024);
  const acknowledged = (await writer).split("\n");
  expect(Number(await inside("box", "df --output=size -m /mnt/rows | tail -1"))).toBeGreaterThan(900);
  const check = `cd /mnt/rows; while read -r row sum rest; do [ "$(echo $row | sha256sum | cut -d' ' -f1)" = $sum ] && echo $row; done < rows`;
  expect((await inside("box", check)).split("\n")).toEqual(acknowledged);
  const shrunk = await daemon.strata(["volume", "grow", "rows", "512MiB", "-p", project]);
  expect(shrunk.status).not.toBe(0);
  expect(shrunk.stderr).toContain("do not shrink");
});

it("of an instance's root stays where it is, and says so", async () => {
  const root = (await daemon.client.list(volumeKind, { project })).items.find(
    ({ spec }) => spec.role === "root",
  );
  const { status, stderr } = await daemon.strata([
    "volume",
    "detach",
    root?.metadata.name ?? "",
    "-p",
    project,
  ]);
  expect(stderr).toMatch(/is the root volume of instance "(vm|box)" and cannot be detached/);
  expect(status).toBe(4);
});

it("is not deleted while it is used or protected, and outlives its instance", async () => {
  const used = await daemon.strata(["volume", "delete", "rows", "-p", project, "--yes"]);
  expect(used.stderr).toContain('attached to instance "box"');
  const root = await daemon.strata(["volume", "delete", "box-root", "-p", project, "--yes"]);
  expect(root.stderr).toContain("goes with it");
  await strata("delete", "box", "--yes");
  for (const name of ["rows", "records"]) {
    await until(
      `${name} is free`,
      async () => (await volume(name)).status.state === "available",
      60_000,
      200,
    );
  }
  await strata("volume", "protect", "records");
  expect((await daemon.strata(["volume", "delete", "records", "-p", project, "--yes"])).stderr).toContain(
    "protected",
  );
  await strata("volume", "protect", "records", "--off");
  await strata("volume", "delete", "records", "rows", "--yes");
  await until(
    "both are gone",
    async () => {
      const { items } = await daemon.client.list(volumeKind, { project });
      return items.every(({ spec }) => spec.role === "root");
    },
    30_000,
    100,
  );
});
