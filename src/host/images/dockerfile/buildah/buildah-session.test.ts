import { expect, test } from "vitest";
import { buildArguments } from "./buildah-session.ts";

test("what a build is given becomes arguments, and steps get no capability that buildah does not give by itself", () => {
  const order = { args: { COLOUR: "blue" }, target: "last", cache: true };
  const given = buildArguments(order, "localhost/strata-build:1-1");
  expect(given.filter((argument) => argument.startsWith("--cap-add"))).toEqual([]);
  expect(given).toEqual(expect.arrayContaining(["--build-arg=COLOUR=blue", "--target=last"]));
});

test.each([
  ["one of 128 KiB", { LONG: "x".repeat(128 * 1024) }, /^spec\.source\.args: LONG has more than 128 KiB/],
  [
    "many that have more than 1 MiB together",
    Object.fromEntries(Array.from({ length: 11 }, (_, n) => [`A${n}`, "x".repeat(100_000)])),
    /^spec\.source\.args has more than 1 MiB/,
  ],
])("arguments that the kernel would not take are refused: %s", (_name, args, message) => {
  const order = { args, target: undefined, cache: true };
  expect(() => buildArguments(order, "localhost/strata-build:1-1")).toThrow(
    expect.objectContaining({ code: "Invalid", message: expect.stringMatching(message) }),
  );
});
