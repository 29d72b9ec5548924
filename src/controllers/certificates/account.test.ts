import { expect, test } from "vitest";
import { projectKind } from "../../kinds/project.ts";
import { systemPrincipal as me } from "../../services/principal.ts";
import { testServices } from "../../services/testing.ts";
import { accountKey } from "./account.ts";

const authority = { directory: "https://authority.test/directory", email: "" };

test("each project has an account of its own, and keeps it", async () => {
  const { services, store } = await testServices();
  await services.resources.create(me, projectKind, { name: "other", spec: {} });
  const first = await accountKey(store, { project: "default", ...authority });
  expect(first).toContain("PRIVATE KEY");
  expect(await accountKey(store, { project: "default", ...authority })).toBe(first);
  expect(await accountKey(store, { project: "other", ...authority })).not.toBe(first);
  expect(await accountKey(store, { project: "default", ...authority, email: "a@b.test" })).not.toBe(first);
  await expect(accountKey(store, { project: "nobody", ...authority })).rejects.toThrow(/is gone/);
});
