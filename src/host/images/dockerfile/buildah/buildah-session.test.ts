import { expect, test } from "vitest";
import { buildArguments } from "./buildah-session.ts";

test("steps may not change their root, which would lead them out of the jail", () => {
  const order = { args: { COLOUR: "blue" }, target: "last", cache: true };
  const given = buildArguments(order, "localhost/strata-build:1-1");
  expect(given).toContain("--cap-drop=CAP_SYS_CHROOT");
  expect(given.filter((argument) => argument.startsWith("--cap-add"))).toEqual([]);
  expect(given).toEqual(expect.arrayContaining(["--build-arg=COLOUR=blue", "--target=last"]));
});
