/** Images built from Debian's archive: what must be in them, what must not, and that they boot. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { readdir, readFile, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { createDisks } from "../src/host/disks/create-disks.ts";
import type { ImageStore, StoredImage } from "../src/host/images/image-store.ts";
import type { ImageSource } from "../src/kinds/image.ts";
import { ImagesBox, make, sh, signal } from "./images-box.ts";

const bootLimitMs = 280_000;
let box: ImagesBox;
let store: ImageStore;

beforeAll(async () => {
  box = await ImagesBox.create();
  store = await box.store();
});
afterAll(async () => {
  expect(box.leaks()).toEqual([]);
  await box.remove();
});

function debian(suite: "bookworm" | "trixie", packages: string[] = []): ImageSource {
  return { type: "debian", suite, packages };
}

describe.each([
  ["bookworm", /Debian GNU\/Linux 12/],
  ["trixie", /Debian GNU\/Linux 13/],
] as const)("%s", (suite, os) => {
  let image: StoredImage;
  let tree: string;

  it("is built once, with progress", async () => {
    const fractions: number[] = [];
    image = await make(store, debian(suite, ["nano", "less"]), undefined, ({ fraction }) => {
      if (fraction !== undefined) fractions.push(fraction);
    });
    expect(image).toMatchObject({
      types: ["vm", "container"],
      limitation: "",
      os: expect.stringMatching(os),
    });
    expect(fractions.length).toBeGreaterThan(5);
    expect(fractions).toEqual([...fractions].sort((a, b) => a - b));
    expect(await make(store, debian(suite, ["less", "nano", "less"]))).toEqual(image);
    tree = (await store.containerTree(image.digest, signal)).path;
  });

  it("holds what every guest needs and nothing that must be a guest's own", async () => {
    const find = async (...patterns: string[]) =>
      sh('cd "$1"; shift; for pattern; do ls -d $pattern 2>/dev/null || true; done', tree, ...patterns);
    for (const path of [
      "usr/sbin/sshd",
      "usr/bin/cloud-init",
      "usr/bin/less",
      "usr/bin/nano",
      "usr/sbin/qemu-ga",
    ]) {
      expect(await find(path), path).toBe(path);
    }
    expect(await find("etc/ssh/ssh_host_*", "etc/hostname", "var/lib/cloud/instance*")).toBe("");
    expect(await find("etc/apt/apt.conf.d/99mmdebstrap", "etc/dpkg/dpkg.cfg.d/99mmdebstrap", "tmp/*")).toBe(
      "",
    );
    expect(await readFile(join(tree, "etc/machine-id"), "utf8")).toBe("");
    expect(await readdir(join(tree, "dev"))).toEqual([]);
    expect(await readdir(join(tree, "var/lib/cloud/seed/nocloud"))).toEqual([]);
    expect(await sh('readlink "$1/etc/resolv.conf"', tree)).toBe("../run/systemd/resolve/stub-resolv.conf");
    expect(await readFile(join(tree, "etc/apt/sources.list"), "utf8")).toContain(`${suite}-security`);
    expect((await stat(join(tree, "usr/bin/sudo"))).mode & 0o7777).toBe(0o4755);
    for (const [account, home] of [
      ["root", "root"],
      ["debian", "home/debian"],
    ] as const) {
      expect(await sh('grep -c "^$2:[*!]" "$1/etc/shadow"', tree, account)).toBe("1");
      expect(await find(`${home}/.ssh/*`)).toBe(`${home}/.ssh/authorized_keys`);
      expect(await readFile(join(tree, `${home}/.ssh/authorized_keys`), "utf8")).toBe("");
    }
    expect(await sh('grep -rl "^debian" "$1/etc/sudoers" "$1/etc/sudoers.d" || true', tree)).toBe("");
  });

  it("boots as a VM, takes its seed and grows", async () => {
    const seed = join(box.directory, `seed-${suite}`);
    const userData =
      "#cloud-config\nruncmd:\n  - echo MARK $(hostname) $(df -BM --output=size / | tail -1) > /dev/ttyS0\n  - poweroff\n";
    await sh('mkdir "$1"', seed);
    await writeFile(join(seed, "meta-data"), "instance-id: i-1\nlocal-hostname: seeded\n");
    await writeFile(join(seed, "user-data"), userData);
    await sh('genisoimage -quiet -output "$1.iso" -volid cidata -joliet -rock "$1"/*', seed);
    const disks = createDisks({ directory: join(box.directory, "volumes"), images: store });
    const request = { uid: suite, type: "vm", sizeMib: 3000, imageDigest: image.digest } as const;
    const root = await disks.ensureRoot(request, signal);
    if (root.type !== "disk" || !root.boot?.initrd) throw new Error("the image has a kernel and an initrd");
    const output = await bootTo(
      "reboot: Power down",
      root.path,
      `${seed}.iso`,
      root.boot.kernel,
      root.boot.initrd,
      root.boot.commandLine,
    );
    const [, name, mib] = /MARK (\S+) +(\d+)M/.exec(output) ?? [];
    expect(name).toBe("seeded");
    expect(Number(mib)).toBeGreaterThan(2700);
    await disks.remove(suite, signal);
  });
});

async function bootTo(
  mark: string,
  disk: string,
  seed: string,
  kernel: string,
  initrd: string,
  line: string,
): Promise<string> {
  const drives = [disk, seed].flatMap((file, index) => [
    ...["-drive", `file=${file},if=none,id=d${index},format=${index === 0 ? "qcow2" : "raw,readonly=on"}`],
    ...["-device", `virtio-blk-pci,drive=d${index}`],
  ]);
  const machine = [
    "-M",
    "q35",
    "-accel",
    "tcg",
    "-cpu",
    "max",
    "-smp",
    "2",
    "-m",
    "768",
    "-nodefaults",
    "-display",
    "none",
  ];
  const append = `${line} tsc_early_khz=2000000 no_timer_check`;
  const boot = ["-kernel", kernel, "-initrd", initrd, "-append", append, "-serial", "stdio", "-no-reboot"];
  const vm = spawn("qemu-system-x86_64", [...machine, ...drives, ...boot], {
    stdio: ["pipe", "pipe", "inherit"],
  });
  const stop = AbortSignal.timeout(bootLimitMs);
  stop.addEventListener("abort", () => vm.kill("SIGKILL"));
  let output = "";
  for await (const text of vm.stdout.setEncoding("utf8")) output += text;
  if (vm.exitCode === null && vm.signalCode === null) await once(vm, "close");
  expect(output.slice(-3000)).toContain(mark);
  return output;
}

it("is refused for a package that does not exist", async () => {
  const source = debian("bookworm", ["no-such-package-at-all"]);
  await expect(make(store, source)).rejects.toMatchObject({
    code: "Invalid",
    message: 'Debian bookworm has no package "no-such-package-at-all"',
  });
  expect(await readdir(join(box.imageDir, "tmp"))).toEqual([]);
});

it("ends at once when it is given up, and leaves nothing", async () => {
  const controller = new AbortController();
  const options = {
    signal: controller.signal,
    onProgress: ({ step }: { step: string }) => {
      if (step === "unpacking the base system") controller.abort(new Error("enough"));
    },
    project: "default",
    openUpload: () => Promise.reject(new Error("no upload")),
  };
  await expect(store.make(debian("trixie", ["file"]), options)).rejects.toThrow("enough");
  expect(await readdir(join(box.imageDir, "tmp"))).toEqual([]);
  expect(box.leaks()).toEqual([]);
});
