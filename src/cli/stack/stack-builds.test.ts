import { mkdir, mkdtemp, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import type { StrataError } from "../../core/errors.ts";
import type { JsonObject } from "../../core/json.ts";
import { imageKind } from "../../kinds/image.ts";
import { stackLabel } from "./expand-stack.ts";
import { loadStack } from "./load-stack.ts";
import { type Existing, planStack } from "./plan-stack.ts";

let directory: string;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "strata-stack-"));
  await mkdir(join(directory, "shop"));
  await writeFile(join(directory, "shop/Dockerfile"), "FROM scratch\n");
});
afterEach(() => rm(directory, { recursive: true }));

async function load(image: string) {
  const instances = "instances: { a: { type: vm, image: i } }";
  await writeFile(join(directory, "s.yaml"), `stack: s\nimages: { i: ${image} }\n${instances}\n`);
  return await loadStack("s.yaml", { cwd: directory, home: undefined });
}

const imageOf = async (text: string) => {
  const { desired } = await load(text);
  const found = desired.find(({ kind }) => kind === imageKind);
  if (!found) throw new Error("there is no image");
  return found;
};

/** The image as it is after an `up`, made of the upload `u1`. */
function existing({ spec }: { spec: JsonObject }): Existing {
  const source = { ...(spec.source as JsonObject), upload: "u1" };
  const metadata = { name: "i", project: "s", uid: "x", labels: { [stackLabel]: "s" }, finalizers: [] };
  const resource = { kind: "Image", metadata, spec: imageKind.spec.parse({ ...spec, source }), status: {} };
  return { kind: imageKind, resource } as unknown as Existing;
}

test("a directory with a Dockerfile becomes an image; what has to be sent is known by its checksum", async () => {
  const { spec, upload } = await imageOf("{ build: shop, args: { VERSION: '2' }, target: web }");
  expect(spec).toMatchObject({
    source: { type: "dockerfile", upload: "", file: "Dockerfile", args: { VERSION: "2" }, target: "web" },
  });
  expect(upload).toMatchObject({ dockerfile: "Dockerfile", sha256: (spec.source as JsonObject).sha256 });
  expect(upload?.path).toMatch(/\/shop$/);
});

test("it is built again when its content or its recipe changed, and else left alone and not sent", async () => {
  const before = existing(await imageOf("{ build: shop }"));
  const changeOf = async (image: string) => {
    const { changes } = planStack({ ...(await load(image)), project: "s" }, [before]);
    return changes.find((change) => change.action !== "delete" && change.desired.kind === imageKind);
  };
  const same = await changeOf("{ build: ./shop }");
  expect(same?.action).toBe("unchanged");
  expect(same).toMatchObject({ desired: { spec: { source: { upload: "u1" } } } });
  expect((same as { desired: object }).desired).not.toHaveProperty("upload");
  expect((await changeOf("{ build: shop, args: { A: b } }"))?.action).toBe("replace");
  await writeFile(join(directory, "shop/app"), "new");
  expect((await changeOf("{ build: shop }"))?.action).toBe("replace");
  await writeFile(join(directory, "shop/.dockerignore"), "app\n");
  await writeFile(join(directory, "shop/Containerfile"), "FROM scratch\n");
  const other = await changeOf("{ build: shop, dockerfile: Containerfile }");
  expect(other).toMatchObject({ action: "replace", desired: { upload: { dockerfile: "Containerfile" } } });
});

test.each([
  ["{ build: nothing }", /there is no directory "nothing" beside the stack file/],
  ["{ build: link }", /"link" must lie in the directory of the stack file/],
  ["{ build: /etc }", /"\/etc" must lie in the directory of the stack file/],
  ["{ build: shop, dockerfile: other }", /has no file "other"/],
  ["{ build: shop, dockerfile: ../s.yaml }", /must be a path in/],
  ["{ build: shop, debian: bookworm }", /needs exactly one of/],
  ["{ build: shop, sha256: x }", /sha256 has no meaning for an image from build/],
  ["{ debian: bookworm, args: { A: b } }", /args has no meaning for an image from debian/],
])("%s is refused", async (image, expected) => {
  await symlink("/etc", join(directory, "link"));
  const failure: StrataError = await load(image).then(
    () => Promise.reject(new Error("it was taken")),
    (error) => error,
  );
  expect(failure.code).toBe("Invalid");
  expect(failure.fields.map(({ message }) => message).join("\n")).toMatch(expected);
});
