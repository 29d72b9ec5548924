import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { systemClock } from "../../core/clock.ts";
import { VirtualClock } from "../../core/virtual-clock.ts";
import { type KvmProbeOptions, probeKvm } from "./kvm.ts";
import { readKvmFacts } from "./kvm-facts.ts";
import { probeMarker } from "./probe-initramfs.ts";
import { findProbeKernel } from "./probe-kernel.ts";

let directory: string;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "kvm-probe-"));
});
afterEach(() => rmSync(directory, { recursive: true }));

/** A program in QEMU's place: answers --version, counts its boots in a file, then does as told. */
function fakeQemu(script: string): Pick<KvmProbeOptions, "qemu" | "kernel"> {
  const qemu = join(directory, "qemu");
  const counter = join(directory, "boots");
  writeFileSync(
    qemu,
    `#!/bin/sh\nif [ "$1" = --version ]; then echo "QEMU emulator version 9.9"; exit; fi\necho boot >> ${counter}\n${script}\n`,
  );
  chmodSync(qemu, 0o755);
  const kernel = join(directory, "vmlinuz");
  writeFileSync(kernel, "kernel");
  return { qemu, kernel };
}

describe("probeKvm", () => {
  it("says yes when the guest's user space speaks", async () => {
    const proof = await probeKvm({ ...fakeQemu(`echo; echo "${probeMarker}"`), clock: systemClock });
    expect(proof).toMatchObject({ works: true, reason: "a guest booted to user space" });
  });

  it.each([
    ["QEMU's words when it cannot run", "echo 'failed to set MSR 0x10a' >&2; exit 1", /MSR 0x10a/],
    ["that it was killed", "echo 'Assertion failed' >&2; kill -ABRT $$", /Assertion failed/],
    ["that the kernel ended early", "echo 'Kernel panic'", /before it reached user space/],
  ])("says no, and %s", async (_name, script, reason) => {
    const proof = await probeKvm({ ...fakeQemu(script), clock: systemClock });
    expect(proof.works).toBe(false);
    expect(proof.reason).toMatch(reason);
  });

  it("says no after its time limit and leaves nothing running", async () => {
    const proof = await probeKvm({ ...fakeQemu("exec sleep 60"), clock: systemClock, timeoutMs: 100 });
    expect(proof.works).toBe(false);
    expect(proof.reason).toMatch(/within 100 ms/);
  });

  it("remembers a yes, forgets a no after an hour, and asks again for another kernel", async () => {
    const clock = new VirtualClock();
    const boots = () => readFileSync(join(directory, "boots"), "utf8").split("\n").length - 1;
    const no = { ...fakeQemu("exit 1"), clock, cacheFile: join(directory, "new", "cache.json") };
    await probeKvm(no);
    expect((await probeKvm(no)).works).toBe(false);
    expect(boots()).toBe(1);
    await clock.advance(3_600_000);
    const yes = { ...no, ...fakeQemu(`echo "${probeMarker}"`) };
    expect((await probeKvm(yes)).works).toBe(true);
    await clock.advance(7_200_000);
    expect((await probeKvm(yes)).works).toBe(true);
    expect(boots()).toBe(2);
    writeFileSync(yes.kernel, "another kernel");
    await probeKvm(yes);
    expect(boots()).toBe(3);
  });

  it("throws when there is no QEMU or no kernel, and when aborted", async () => {
    const options = { ...fakeQemu("exec sleep 60"), clock: systemClock };
    await expect(probeKvm({ ...options, qemu: join(directory, "none") })).rejects.toMatchObject({
      code: "Unavailable",
    });
    await expect(probeKvm({ ...options, kernel: join(directory, "none") })).rejects.toMatchObject({
      code: "Unavailable",
    });
    const abort = new AbortController();
    const probing = probeKvm({ ...options, signal: abort.signal });
    abort.abort(new Error("enough"));
    await expect(probing).rejects.toThrow("enough");
  });
});

describe("readKvmFacts", () => {
  it("reads flags, nesting and IOMMU, and takes what is missing as absent", async () => {
    expect(await readKvmFacts(directory)).toEqual({
      "kvm-device": "absent",
      "cpu-extension": "none",
      "host-is-virtual": "no",
      "nested-virtualization": "unknown",
      iommu: "off",
    });
    mkdirSync(join(directory, "proc"));
    writeFileSync(join(directory, "proc/cpuinfo"), "processor\t: 0\nflags\t\t: fpu vmx hypervisor\n");
    mkdirSync(join(directory, "sys/module/kvm_intel/parameters"), { recursive: true });
    writeFileSync(join(directory, "sys/module/kvm_intel/parameters/nested"), "Y\n");
    mkdirSync(join(directory, "sys/kernel/iommu_groups/0"), { recursive: true });
    mkdirSync(join(directory, "dev"));
    writeFileSync(join(directory, "dev/kvm"), "");
    expect(await readKvmFacts(directory)).toEqual({
      "kvm-device": "present",
      "cpu-extension": "vmx",
      "host-is-virtual": "yes",
      "nested-virtualization": "on",
      iommu: "1 groups",
    });
  });
});

describe("findProbeKernel", () => {
  it("takes a fetched kernel first, then an image's", async () => {
    const places = {
      imageDir: join(directory, "images"),
      cacheDir: join(directory, "cache"),
      bootDir: directory,
    };
    expect(await findProbeKernel(places)).toBeUndefined();
    mkdirSync(join(places.imageDir, "sha256:1"), { recursive: true });
    writeFileSync(join(places.imageDir, "sha256:1/vmlinuz"), "");
    expect(await findProbeKernel(places)).toBe(join(places.imageDir, "sha256:1/vmlinuz"));
    mkdirSync(places.cacheDir);
    writeFileSync(join(places.cacheDir, "vmlinuz"), "");
    expect(await findProbeKernel(places)).toBe(join(places.cacheDir, "vmlinuz"));
  });
});
