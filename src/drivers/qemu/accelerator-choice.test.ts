import { describe, expect, it } from "vitest";
import { silentLogger } from "../../core/logger.ts";
import { AcceleratorChoice, parseTscKhz } from "./accelerator-choice.ts";

const { signal } = new AbortController();

describe("AcceleratorChoice", () => {
  it("takes KVM where it is proven, and asks once", async () => {
    let asked = 0;
    const choice = new AcceleratorChoice({
      logger: silentLogger,
      proveKvm: async () => {
        asked++;
        return { works: true, ms: 300, reason: "booted" };
      },
    });
    expect(await choice.choose(signal)).toEqual({ type: "kvm" });
    expect(await choice.choose(signal)).toEqual({ type: "kvm" });
    expect(asked).toBe(1);
  });

  it("emulates where it is not, and where it could not be tried for now", async () => {
    const answers = [
      () => Promise.reject(new Error("no kernel at hand")),
      () => Promise.resolve({ works: false, ms: 1, reason: "hangs" }),
    ];
    const proveKvm = async () => (await answers.shift()?.()) ?? { works: true, ms: 0, reason: "" };
    const choice = new AcceleratorChoice({ logger: silentLogger, proveKvm });
    expect(await choice.choose(signal)).toMatchObject({ type: "tcg" });
    expect(await choice.choose(signal)).toMatchObject({ type: "tcg" });
    expect(answers).toHaveLength(0);
  });
});

describe("parseTscKhz", () => {
  it("halves BogoMIPS, which tells the counter's rate whatever the core runs at", () => {
    expect(parseTscKhz("cpu MHz\t\t: 1200.000\nbogomips\t: 5192.19\n")).toBe(2_596_095);
    expect(parseTscKhz("cpu MHz\t\t: 1200.000\n")).toBe(1_200_000);
    expect(parseTscKhz("")).toBe(1_000_000);
  });
});
