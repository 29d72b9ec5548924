import { mkdtempDisposable, readFile, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { certificateKind } from "../../kinds/certificate.ts";
import { loadBalancerKind } from "../../kinds/load-balancer.ts";
import { loadStack } from "./load-stack.ts";

/** Load balancers in stack files: the examples of the guide. */

const guide = await readFile(new URL("../../../docs/load-balancing.md", import.meta.url), "utf8");
const examples = [...guide.matchAll(/^```yaml\n(.*?)^```$/gms)].map(([, text = ""]) => text);

test("the guide has an example", () => {
  expect(examples).toHaveLength(1);
});

test("it is a balancer with a certificate and the settings that the guide speaks of", async () => {
  await using directory = await mkdtempDisposable(join(tmpdir(), "strata-balancers-"));
  await writeFile(join(directory.path, "stack.yaml"), examples[0] ?? "");
  const { desired } = await loadStack("stack.yaml", { cwd: directory.path, home: undefined });
  const of = (name: string) => desired.filter(({ kind }) => kind.name === name);
  const certificates = of(certificateKind.name);
  expect(certificates).toMatchObject([{ name: "site", spec: { acme: { domains: ["www.example.org"] } } }]);
  const balancers = of(loadBalancerKind.name);
  expect(balancers.map(({ name }) => name)).toEqual(["front"]);
  expect(loadBalancerKind.spec.parse(balancers[0]?.spec)).toMatchObject({
    group: "web",
    targetPort: 80,
    listeners: [
      { port: 80, protocol: "http", redirectTo: 443 },
      { port: 443, protocol: "https", certificates: ["site"] },
    ],
    healthCheck: { type: "http", path: "/health" },
    accessLog: false,
  });
});
