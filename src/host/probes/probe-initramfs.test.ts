import { describe, expect, it } from "vitest";
import { cpioArchive } from "./cpio.ts";
import { initProgram, probeInitramfs, probeMarker } from "./probe-initramfs.ts";

describe("cpioArchive", () => {
  it("writes headers, names and contents aligned to four bytes", () => {
    const archive = Buffer.from(
      cpioArchive([{ type: "file", path: "abc", mode: 0o644, content: Buffer.from("hello") }]),
    );
    const zeros = "00000000";
    const header = `07070100000001000081a4${zeros.repeat(2)}00000001${zeros}`;
    expect(archive.subarray(0, header.length).toString()).toBe(header);
    expect(archive.subarray(54, 62).toString()).toBe("00000005"); // size of the content
    expect(archive.subarray(94, 102).toString()).toBe("00000004"); // size of the name, NUL included
    expect(archive.subarray(110, 116).toString()).toBe("abc\0\0\0");
    expect(archive.subarray(116, 124).toString()).toBe("hello\0\0\0");
    expect(archive.subarray(124, 130).toString()).toBe("070701");
    expect(archive.includes("TRAILER!!!\0")).toBe(true);
    expect(archive.length % 4).toBe(0);
  });

  it("refuses a path that leaves the archive's root", () => {
    expect(() => cpioArchive([{ type: "directory", path: "/etc", mode: 0o755 }])).toThrow(/relative/);
  });
});

// The program powers the machine off: it is executed in the end-to-end test only, as a guest.
describe("the probe's guest", () => {
  it("has an init whose entry point and message are where its code expects them", () => {
    const program = Buffer.from(initProgram("text\n"));
    expect(program.subarray(0, 4).toString("latin1")).toBe("\x7fELF");
    const entry = Number(program.readBigUInt64LE(24)) - Number(program.readBigUInt64LE(64 + 16));
    expect(entry).toBe(64 + 56);
    const lea = program.indexOf(Buffer.from([0x48, 0x8d, 0x35]));
    const messageAt = lea + 7 + program.readInt32LE(lea + 3);
    expect(program.subarray(messageAt).toString()).toBe("text\n");
    expect(Number(program.readBigUInt64LE(64 + 32))).toBe(program.length);
  });

  it("has a console before anything is mounted", () => {
    const archive = Buffer.from(probeInitramfs());
    expect(archive.includes("dev/console\0")).toBe(true);
    expect(archive.includes(probeMarker)).toBe(true);
  });
});
