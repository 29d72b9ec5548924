import { mkdtempSync, rmSync } from "node:fs";
import { createServer, type Server } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Readable } from "node:stream";
import { afterEach, beforeEach, expect, test } from "vitest";
import { Engine, engineSocket } from "./engine.ts";
import { lastMessage, messagesOf } from "./engine-messages.ts";
import { containerName, imageTag, labels, ownerOf } from "./labels.ts";

let directory: string;
let server: Server | undefined;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "strata-engine-"));
});
afterEach(() => {
  server?.closeAllConnections();
  server?.close();
  server = undefined;
  rmSync(directory, { recursive: true, force: true });
});

async function engineThat(answer: (path: string) => { status: number; body: string } | undefined) {
  const path = join(directory, "sock");
  server = createServer((request, response) => {
    const said = answer(request.url ?? "");
    if (said === undefined) return; // and never answers
    response.writeHead(said.status, { "content-type": "application/json" }).end(said.body);
  });
  await new Promise<void>((resolve) => server?.listen(path, resolve));
  return new Engine(() => path);
}

test("the Engine is the one that is configured, then DOCKER_HOST's, then the usual one", () => {
  expect(engineSocket("/a", "unix:///b")).toBe("/a");
  expect(engineSocket(undefined, "unix:///b")).toBe("/b");
  expect(engineSocket(undefined, undefined)).toBe("/var/run/docker.sock");
  expect(() => engineSocket(undefined, "tcp://elsewhere:2375")).toThrow(
    expect.objectContaining({ code: "Unsupported" }),
  );
});

test.each([
  [404, "NotFound"],
  [409, "Conflict"],
  [400, "Invalid"],
  [500, "Unavailable"],
])("status %i is %s, with the Engine's own words", async (status, code) => {
  const engine = await engineThat(() => ({ status, body: '{"message":"because of this"}' }));
  await expect(engine.info(new AbortController().signal)).rejects.toMatchObject({
    code,
    message: "the Docker Engine cannot tell about itself: because of this",
  });
});

test("an absent container is undefined", async () => {
  const engine = await engineThat(() => ({ status: 404, body: '{"message":"No such container"}' }));
  expect(await engine.inspect("x")).toBeUndefined();
});

test("an Engine that is not there, or does not answer in time, is told", async () => {
  const absent = new Engine(() => join(directory, "none"));
  await expect(absent.inspect("x")).rejects.toMatchObject({
    code: "Unavailable",
    message: expect.stringContaining(join(directory, "none")),
  });
  const silent = await engineThat(() => undefined);
  await expect(silent.call("answer", (docker) => docker.info(), { timeoutMs: 20 })).rejects.toMatchObject({
    code: "Timeout",
  });
  const reason = new Error("enough");
  await expect(silent.info(AbortSignal.abort(reason))).rejects.toBe(reason);
});

test("messages come a line at a time, however they are cut; what is none is skipped", async () => {
  const pieces = ['{"Action":"st', 'art"}\n\nnonsense\n{"Action":"die"}'];
  const found: (string | undefined)[] = [];
  for await (const { Action } of messagesOf(Readable.from(pieces))) found.push(Action);
  expect(found).toEqual(["start", "die"]);
  expect(
    await lastMessage(Readable.from(['{"status":"x"}\n{"error":"no space"}\n{"status":"y"}\n'])),
  ).toEqual({
    error: "no space",
  });
});

test("only what carries our labels is ours", () => {
  const uid = "0123456789abcdef";
  expect(ownerOf({ [labels.namespace]: "a", [labels.uid]: uid }, "a")).toBe(uid);
  expect(ownerOf({ [labels.namespace]: "b", [labels.uid]: uid }, "a")).toBeUndefined();
  expect(ownerOf({ [labels.uid]: uid }, "a")).toBeUndefined();
  expect(ownerOf({ [labels.namespace]: "a", [labels.uid]: "../../etc" }, "a")).toBeUndefined();
  expect(ownerOf(null, "a")).toBeUndefined();
  expect(containerName("a", uid as never)).toBe("a-0123456789abcdef");
  expect(imageTag("a", "sha256:00").name).toBe("strata.local/a:00");
});
