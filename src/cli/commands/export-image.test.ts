import { expect, test } from "vitest";
import { exportFormatOf } from "./export-image.ts";

test("a file's name says its format", () => {
  expect(exportFormatOf("web.qcow2")).toBe("qcow2");
  expect(exportFormatOf("/a.b/WEB.OVA")).toBe("ova");
  expect(exportFormatOf("root.tar")).toBe("tar");
  expect(() => exportFormatOf("web.zip")).toThrow(/one of tar, qcow2/);
  expect(() => exportFormatOf("qcow3")).toThrow(/does not say which format/);
});
