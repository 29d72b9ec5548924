import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { type Image, imageKind } from "../../kinds/image.ts";
import type { Kind } from "../../kinds/kind.ts";
import { TestTerminal } from "../test-terminal.ts";

let terminal: TestTerminal;
let directory: string;
let sent: number;
beforeEach(async () => {
  terminal = new TestTerminal();
  sent = 0;
  const upload = async (data: AsyncIterable<Uint8Array>) => {
    for await (const chunk of data) sent += chunk.length;
    return { upload: "u1", sha256: "", sizeBytes: sent };
  };
  Object.assign(terminal.client, { upload });
  directory = await mkdtemp(join(tmpdir(), "shop-"));
  await writeFile(join(directory, "Dockerfile"), "FROM scratch\n");
});
afterEach(() => rm(directory, { recursive: true }));

const build = (...args: string[]) => terminal.run("image", "build", ...args, "--no-wait");
const sourceOf = (name: string) =>
  (terminal.client.resources.get(`/images/default/${name}`) as Image | undefined)?.spec.source;

test("a directory is sent and built, with what was said about the build", async () => {
  const options = [
    "--build-arg",
    "A=1=2",
    "--target",
    "last",
    "--no-cache",
    "--memory",
    "1GiB",
    "--cpus",
    "0.5",
  ];
  const { status, err } = await build("shop", directory, ...options, "--time-limit", "60");
  expect(err).not.toContain("error");
  expect(status).toBe(0);
  expect(sourceOf("shop")).toMatchObject({
    ...{
      type: "dockerfile",
      upload: "u1",
      file: "Dockerfile",
      args: { A: "1=2" },
      target: "last",
      cache: false,
    },
    limits: { memoryMib: 1024, cpus: 0.5, seconds: 60 },
  });
});

test("a name alone is that of an image of Debian", async () => {
  expect((await build("debian", "--suite", "trixie")).status).toBe(0);
  expect(sourceOf("debian")).toMatchObject({ type: "debian", suite: "trixie" });
});

test.each<[what: string, args: (directory: string) => string[], message: RegExp]>([
  ["no directory", (path) => ["shop", `${path}/none`], /none is no directory; a build needs one/],
  [
    "no Dockerfile",
    (path) => ["shop", path, "-f", "none"],
    /has no file "none"; name the Dockerfile with --file/,
  ],
  ["a Dockerfile elsewhere", (path) => ["shop", path, "-f", "../x"], /must be a path in/],
  ["an argument without value", (path) => ["shop", path, "--build-arg", "A"], /must be NAME=VALUE, not "A"/],
  ["no number", (path) => ["shop", path, "--cpus", "many"], /--cpus must be a number/],
  ["packages", (path) => ["shop", path, "--package", "nginx"], /--package has no meaning with a Dockerfile/],
  ["a target without a directory", () => ["shop", "--target", "x"], /--target is for a directory/],
  ["no cache without a directory", () => ["shop", "--no-cache"], /--no-cache is for a directory/],
])("is refused: %s", async (_what, args, message) => {
  const { status, err } = await build(...args(directory));
  expect(status).toBe(2);
  expect(err).toMatch(message);
  expect(sourceOf("shop")).toBeUndefined();
  expect(sent).toBe(0);
});

test("an image that failed is in nobody's way, one that is ready is", async () => {
  const seed = (name: string, state: string) =>
    terminal.client.seed(
      imageKind as Kind,
      { name, project: "default", spec: { source: { type: "debian", suite: "bookworm" } } },
      { observedGeneration: 1, state },
    );
  seed("failed", "failed");
  seed("good", "ready");
  expect((await build("failed", directory)).status).toBe(0);
  expect(sourceOf("failed")).toMatchObject({ type: "dockerfile" });
  const { status, err } = await build("good", directory);
  expect(status).toBe(4);
  expect(err).toContain('there is an image "good" already');
});
