import { expect, test } from "vitest";
import type { BackupRepository } from "../../kinds/backup-repository.ts";
import { intactCondition, isTainted } from "./intact.ts";

const found = (intact: boolean, mended: boolean) =>
  intactCondition([], { intact, mended, message: intact ? "" : "pack 1 is damaged" }, 0);
const tainted = (intact: boolean, mended: boolean) =>
  isTainted({ status: { conditions: found(intact, mended).conditions } } as BackupRepository);

test("damage that was taken out of the way concerns no later backup; other damage does", () => {
  expect(found(true, true)).toMatchObject({ message: "", conditions: [{ status: "true" }] });
  expect(found(false, true).message).toMatch(/pack 1 is damaged; the next backup .* stores anew/);
  expect(found(false, false).message).toMatch(/another repository/);
  expect([tainted(true, true), tainted(false, true), tainted(false, false)]).toEqual([false, false, true]);
  expect(isTainted(undefined)).toBe(false);
});
