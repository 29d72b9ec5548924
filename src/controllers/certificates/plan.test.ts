import { describe, expect, test } from "vitest";
import { testCertificate } from "../../api/test-certificate.ts";
import { fromTimestamp, toTimestamp } from "../../core/clock.ts";
import { type Certificate, certificateKind } from "../../kinds/certificate.ts";
import { factsOf, planCertificate, renewalTime } from "./plan.ts";

const { cert, key } = testCertificate();
const now = fromTimestamp("2026-11-28T00:00:00.000Z") ?? 0;
const dayMs = 86_400_000;

function certificateOf(spec: object, status: Partial<Certificate["status"]> = {}): Certificate {
  return {
    metadata: { name: "site", uid: "c", project: "p", generation: 2 },
    spec: certificateKind.spec.parse(spec),
    status: { ...certificateKind.initialStatus(), ...status },
  } as unknown as Certificate;
}

const acme = { acme: { domains: ["a.test"] } };
const inForce = { chain: cert, observedGeneration: 2, state: "ready" as const };
const plan = (certificate: Certificate, answers = true) => planCertificate({ certificate, answers }, now);

describe("one's own", () => {
  test("is described once", () => {
    const spec = { own: { certificate: cert, privateKey: key } };
    expect(plan(certificateOf(spec)).actions).toMatchObject([
      {
        type: "write",
        status: {
          state: "ready",
          observedGeneration: 2,
          domains: ["localhost"],
          notAfter: "2049-12-31T23:59:59.000Z",
        },
      },
    ]);
    expect(plan(certificateOf(spec, factsOf(cert, 2))).actions).toEqual([]);
    expect(plan(certificateOf(spec, factsOf(cert, 1))).actions).toHaveLength(1);
  });
});

describe("of an authority", () => {
  test("is ordered once somebody can answer", () => {
    const [waits] = plan(certificateOf(acme), false).actions;
    expect(waits).toMatchObject({
      type: "write",
      status: { message: expect.stringContaining("http listener") },
    });
    const told = waits?.type === "write" ? waits.status : {};
    expect(plan(certificateOf(acme, told), false).actions).toEqual([]);
    expect(plan(certificateOf(acme, told)).actions).toMatchObject([{ type: "obtain" }]);
  });

  test("is renewed in time, and looked at until then", () => {
    const at = (ms: number) => plan(certificateOf(acme, { ...inForce, renewAt: toTimestamp(now + ms) }));
    expect(at(1_000)).toMatchObject({ actions: [], recheckAfterMs: 1_000 });
    expect(at(300 * dayMs).recheckAfterMs).toBe(dayMs / 2);
    expect(at(0).actions).toMatchObject([{ type: "obtain" }]);
    expect(at(-dayMs).actions).toMatchObject([{ type: "obtain" }]);
  });

  test("is ordered anew when its spec changes", () => {
    const renewAt = toTimestamp(now + dayMs);
    expect(plan(certificateOf(acme, { ...inForce, renewAt, observedGeneration: 1 })).actions).toHaveLength(1);
  });

  test("that lives long is renewed so many days before, a short one after two thirds", () => {
    const end = fromTimestamp("2049-12-31T23:59:59.000Z") ?? 0;
    expect(renewalTime(cert, 30)).toBe(end - 30 * dayMs);
    expect(renewalTime(cert, 100_000)).toBeLessThan(end);
    expect(renewalTime(cert, 100_000)).toBeGreaterThan(now);
  });
});
