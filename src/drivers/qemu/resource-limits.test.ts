import fc from "fast-check";
import { expect, it } from "vitest";
import { cgroupLimits } from "./resource-limits.ts";

const tcg = { type: "tcg", tscKhz: 1 } as const;

it("gives QEMU the guest's memory and an overhead, more of it when emulating", () => {
  expect(cgroupLimits({ cpus: 2, memoryMib: 1024 }, { type: "kvm" })).toEqual({
    cpus: 2,
    memoryMib: 1024 + 160 + 16 + 8,
    processes: 162,
  });
  expect(cgroupLimits({ cpus: 2, memoryMib: 1024 }, tcg).memoryMib).toBe(1024 + 160 + 16 + 8 + 256 + 16);
});

it("is a whole number that grows with the guest", () => {
  const size = fc.integer({ min: 16, max: 1_000_000 });
  fc.assert(
    fc.property(size, size, fc.integer({ min: 1, max: 256 }), (a, b, cpus) => {
      const [small, large] = [Math.min(a, b), Math.max(a, b)].map(
        (memoryMib) => cgroupLimits({ cpus, memoryMib }, tcg).memoryMib ?? 0,
      );
      expect(Number.isInteger(small)).toBe(true);
      expect(small).toBeLessThanOrEqual(large ?? 0);
      expect((large ?? 0) - (small ?? 0)).toBeGreaterThanOrEqual(Math.abs(a - b));
    }),
  );
});
