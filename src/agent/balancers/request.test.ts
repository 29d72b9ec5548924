import { expect, test } from "vitest";
import { type Certificate, certificateKind } from "../../kinds/certificate.ts";
import { type LoadBalancer, loadBalancerKind } from "../../kinds/load-balancer.ts";
import { balancerRequest } from "./request.ts";

test("only what is a token and its answer reaches the balancer", () => {
  const challenges = {
    "abc-_1": "abc-_1.xyz",
    "a b": "a.b",
    "a\nshow info": "a.b",
    c: "c.d\nshow info",
    d: "no answer",
  };
  const status = { ...certificateKind.initialStatus(), challenges };
  const spec = loadBalancerKind.spec.parse({ listeners: [{ port: 80 }], group: "web", targetPort: 80 });
  const balancer = { metadata: { uid: "b" }, spec, status: loadBalancerKind.initialStatus() };
  const { request } = balancerRequest({
    balancer: balancer as unknown as LoadBalancer,
    sourceOf: () => undefined,
    pemOf: () => "",
    certificates: [{ status } as unknown as Certificate],
  });
  expect([...request.challenges]).toEqual([["abc-_1", "abc-_1.xyz"]]);
});
