import { expect, test } from "vitest";
import { buildArguments } from "./buildah-session.ts";

test("what a build is given becomes arguments, and steps get no capability that buildah does not give by itself", () => {
  const order = { args: { COLOUR: "blue" }, target: "last", cache: true };
  const given = buildArguments(order, "localhost/strata-build:1-1");
  expect(given.filter((argument) => argument.startsWith("--cap-add"))).toEqual([]);
  expect(given).toEqual(expect.arrayContaining(["--build-arg=COLOUR=blue", "--target=last"]));
});
