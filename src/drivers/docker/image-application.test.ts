import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { applicationPath, type ImageApplication } from "../../host/images/dockerfile/application.ts";
import { dockerConfigSchema } from "./docker-config.ts";
import { instructionsOf } from "./engine-builder.ts";
import type { DockerGuest } from "./guest-record.ts";
import { withImageApplication } from "./image-init.ts";

const application: ImageApplication = {
  command: ["server", "$HOME"],
  environment: ["TITLE=a=b", 'QUOTED=5$ "x" \\', "EMPTY="],
  workingDirectory: "/srv",
  user: "www:web",
  ports: ["80/tcp"],
  stopSignal: "SIGINT",
};

let tree: string;
beforeEach(async () => {
  tree = await mkdtemp(join(tmpdir(), "tree-"));
});
afterEach(() => rm(tree, { recursive: true }));

const guestWith = (config: object) =>
  ({
    root: { type: "image", path: tree },
    config: dockerConfigSchema.parse(config),
  }) as unknown as DockerGuest;

async function writeApplication(text: string): Promise<void> {
  await mkdir(join(tree, dirname(applicationPath)), { recursive: true });
  await writeFile(join(tree, applicationPath), text);
}

test("a container that was told nothing runs its image's application", async () => {
  await writeApplication(JSON.stringify(application));
  expect((await withImageApplication(guestWith({}))).config).toMatchObject({
    ...{ command: ["server", "$HOME"], workingDirectory: "/srv", user: "www:web" },
    environment: { TITLE: "a=b", QUOTED: '5$ "x" \\', EMPTY: "" },
  });
});

test("a container with a command of its own has nothing of it", async () => {
  await writeApplication(JSON.stringify(application));
  const guest = guestWith({ command: ["own"] });
  expect(await withImageApplication(guest)).toEqual(guest);
});

test.each(["no JSON", '{"command":[]}', '{"command":"x"}'])(
  "what is no application (%s) is none",
  async (text) => {
    await writeApplication(text);
    const guest = guestWith({});
    expect(await withImageApplication(guest)).toEqual(guest);
  },
);

test("an image that is built on has the application as instructions", () => {
  expect(instructionsOf(application)).toEqual([
    'ENTRYPOINT ["server","$HOME"]',
    'ENV TITLE="a=b"',
    'ENV QUOTED="5\\$ \\"x\\" \\\\"',
    'ENV EMPTY=""',
    "WORKDIR /srv",
    "USER www:web",
    "EXPOSE 80/tcp",
    "STOPSIGNAL SIGINT",
  ]);
});
