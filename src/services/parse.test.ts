import { expect, test } from "vitest";
import { StrataError } from "../core/errors.ts";
import { imageSpecSchema } from "../kinds/image.ts";
import { instanceSpecSchema } from "../kinds/instance.ts";
import { labelsSchema } from "../kinds/kind.ts";
import { tokenSpecSchema } from "../kinds/token.ts";
import { parseWith } from "./parse.ts";

function fieldsOf(work: () => unknown) {
  try {
    work();
  } catch (error) {
    if (error instanceof StrataError && error.code === "Invalid") return error.fields;
    throw error;
  }
  throw new Error("was accepted");
}

const instance = (spec: object) => fieldsOf(() => parseWith(instanceSpecSchema, spec, "spec", "create it"));

test("fills in defaults", () => {
  const spec = parseWith(instanceSpecSchema, { type: "vm", image: "debian" }, "spec", "create it");
  expect(spec).toMatchObject({ cpus: 1, memoryMib: 512, network: "default", keyPairs: [] });
});

test.each([
  [{ type: "vm", image: "debian", memroyMib: 5 }, "spec.memroyMib", /did you mean "memoryMib"/, /memoryMib/],
  [{ type: "vmm", image: "debian" }, "spec.type", /did you mean "vm"/, /^vm, container$/],
  [{ image: "debian" }, "spec.type", /^is required$/, /^vm, container$/],
  [{ type: "vm" }, "spec.image", /^is required$/, undefined],
  [{ type: "vm", image: "debian", cpus: 1.5 }, "spec.cpus", /whole number, not 1\.5/, undefined],
  [{ type: "vm", image: "debian", cpus: "2" }, "spec.cpus", /must be a number, not "2"/, undefined],
  [{ type: "vm", image: "debian", cpus: 0 }, "spec.cpus", /at least 1/, />= 1/],
  [{ type: "vm", image: "debian", cpus: 9999 }, "spec.cpus", /at most 256/, /<= 256/],
  [
    { type: "vm", image: "debian", keyPairs: {} },
    "spec.keyPairs",
    /must be a list, not an object/,
    undefined,
  ],
  [{ type: "vm", image: "Debian!" }, "spec.image", /a-z, 0-9/, undefined],
])("%j is refused at its place", (spec, path, message, allowed) => {
  const [field] = instance(spec);
  expect(field?.path).toBe(path);
  expect(field?.message).toMatch(message);
  if (allowed) expect(field?.allowed).toMatch(allowed);
});

test("names the place inside lists and unions, and what is known there", () => {
  const services = [{ name: "web", port: 80, prt: 1 }];
  expect(instance({ type: "vm", image: "debian", services })[0]).toMatchObject({
    path: "spec.services[0].prt",
    message: 'is not a known field; did you mean "port"?',
  });
  const source = (value: object) =>
    fieldsOf(() => parseWith(imageSpecSchema, { source: value }, "spec", "create it"))[0];
  expect(source({ type: "debain" })).toMatchObject({
    path: "spec.source.type",
    allowed: "debian, upload, dockerfile, url, catalogue, simplestreams, instance, backup",
    message: expect.stringContaining('did you mean "debian"'),
  });
  expect(source({ type: "debian", suite: "trixie", pakages: [] })).toMatchObject({
    path: "spec.source.pakages",
    message: expect.stringContaining('did you mean "packages"'),
    allowed: "type, suite, packages",
  });
});

test("describes keys of records and formats in words", () => {
  const labels = fieldsOf(() => parseWith(labelsSchema, { "Bad Key": "x" }, "metadata.labels", "label it"));
  expect(labels[0]?.message).toMatch(/has a key that must be 1 to 63/);
  const token = { role: "admin", secretHash: "0".repeat(64), expiresAt: "tomorrow" };
  const times = fieldsOf(() => parseWith(tokenSpecSchema, token, "spec", "create it"));
  expect(times[0]?.message).toMatch(/"tomorrow", which is not a time such as/);
});

test("tells all errors, bounded, and the first in the message", () => {
  const unknown = Object.fromEntries(Array.from({ length: 50 }, (_, i) => [`field${i}`, i]));
  expect(instance({ type: "vm", image: "debian", ...unknown }).length).toBe(20);
  expect(() => parseWith(instanceSpecSchema, { cpus: 0 }, "spec", 'create instance "web"')).toThrow(
    /^cannot create instance "web": spec\.type is required \(and 2 more\)$/,
  );
});
