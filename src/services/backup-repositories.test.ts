import { expect, test } from "vitest";
import { backupRepositoryKind } from "../kinds/backup-repository.ts";
import { systemPrincipal as system } from "./principal.ts";
import { createHost, testServices } from "./testing.ts";

test("of repositories in one another that are created at once, one comes to be", async () => {
  const { services } = await testServices();
  await createHost(services, "alpha", 1024);
  const paths = ["/b/a", "/b/a/c", "/b/a/c/d", "/b/a/c/d/e"];
  const results = await Promise.allSettled(
    paths.map((path, i) => {
      const spec = { directory: { path }, key: "k".repeat(32) };
      return services.resources.create(system, backupRepositoryKind, {
        name: `r${i}`,
        project: "default",
        spec,
      });
    }),
  );
  expect(results.filter(({ status }) => status === "fulfilled")).toHaveLength(1);
  const refused = results.flatMap((one) => (one.status === "rejected" ? [one.reason.code] : []));
  expect(refused).toEqual(["Conflict", "Conflict", "Conflict"]);
});
