import { hash } from "node:crypto";
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from "vitest";
import { WebSocket } from "ws";
import type { Channel, SessionRequest } from "../client/client.ts";
import { createHttpClient, type HttpClient } from "../client/http-client.ts";
import type { JsonObject } from "../core/json.ts";
import { hostKind } from "../kinds/host.ts";
import { imageKind } from "../kinds/image.ts";
import { instanceKind } from "../kinds/instance.ts";
import { tokenKind } from "../kinds/token.ts";
import { systemPrincipal as system } from "../services/principal.ts";
import { createImage } from "../services/testing.ts";
import { testCertificate } from "./test-certificate.ts";
import { raw, startTestApi, type TestApi } from "./testing.ts";

const web = { project: "default", name: "web" };
let api: TestApi;
let client: HttpClient;
let uid = "";
let agent: AbortController;

beforeAll(async () => {
  api = await startTestApi();
  client = createHttpClient({ socketPath: api.socketPath });
  await createImage(api.services);
  await client.create(hostKind, { name: "one", spec: {} });
  const instance = await client.create(instanceKind, { ...web, spec: { type: "vm", image: "debian" } });
  uid = instance.metadata.uid;
});

beforeEach(async () => {
  agent = new AbortController();
  await client.patchStatus(instanceKind, web, uid, { host: "one", state: "running" });
});

afterEach(() => agent.abort());

afterAll(async () => {
  client.close();
  await api.close();
});

/** An agent that answers each request with what `serve` does. */
function runAgent(serve: (request: SessionRequest, channel: Channel) => void): Promise<void> {
  return (async () => {
    for await (const request of client.sessionRequests("one", agent.signal)) {
      serve(request, await client.acceptSession(request.id, agent.signal));
    }
  })();
}

function echo(_request: SessionRequest, channel: Channel): void {
  channel.onData = (number, data) => void channel.send(number + 1, data);
  channel.onControl = (message) => {
    channel.sendControl({ ...message, echoed: true });
    if (message.type === "stdin-end") {
      channel.sendControl({ type: "exit", status: 7 });
      channel.close();
    }
  };
}

interface Collected {
  data: string;
  controls: JsonObject[];
  closed: Promise<Error | undefined>;
}

function collect(channel: Channel): Collected {
  const { promise, resolve } = Promise.withResolvers<Error | undefined>();
  const collected: Collected = { data: "", controls: [], closed: promise };
  channel.onData = (number, data) => {
    collected.data += `${number}:${Buffer.from(data).toString()} `;
  };
  channel.onControl = (message) => collected.controls.push(message);
  channel.onClose = resolve;
  return collected;
}

test("data and control pass both ways, in order, and the end is told", async () => {
  const requests: SessionRequest[] = [];
  const running = runAgent((request, channel) => {
    requests.push(request);
    echo(request, channel);
  });
  const parameters = { command: ["sh", "-c", "echo ü"], tty: { columns: 80, rows: 24 } };
  const channel = await client.openSession("exec", web, parameters, agent.signal);
  const collected = collect(channel);
  await channel.send(0, Buffer.from("hello"));
  await channel.send(0, Buffer.from("again"));
  channel.sendControl({ type: "resize", columns: 100, rows: 30 });
  channel.sendControl({ type: "stdin-end" });
  expect(await collected.closed).toBeUndefined();
  expect(collected.data).toBe("1:hello 1:again ");
  expect(collected.controls).toEqual([
    { type: "resize", columns: 100, rows: 30, echoed: true },
    { type: "stdin-end", echoed: true },
    { type: "exit", status: 7 },
  ]);
  expect(requests).toEqual([{ id: expect.any(String), verb: "exec", instance: { ...web, uid }, parameters }]);
  agent.abort();
  await running;
});

test("what the agent sends at once is not lost, however late the client listens", async () => {
  void runAgent((_request, channel) => {
    void channel.send(1, Buffer.from("early")).then(() => channel.close());
  });
  const channel = await client.openSession("console", web, {}, agent.signal);
  await client.version();
  await client.version();
  const collected = collect(channel);
  expect(await collected.closed).toBeUndefined();
  expect(collected.data).toBe("1:early ");
});

test("a client that pauses before anything came gets everything once it resumes", async () => {
  void runAgent((_request, channel) => {
    void channel.send(1, Buffer.from("early")).then(() => channel.close());
  });
  const channel = await client.openSession("log", web, {}, agent.signal);
  const collected = collect(channel);
  channel.pause();
  for (let i = 0; i < 10; i++) await client.version();
  expect(collected.data).toBe("");
  channel.resume();
  expect(await collected.closed).toBeUndefined();
  expect(collected.data).toBe("1:early ");
});

test("an image's content comes from the host that has it", async () => {
  const ref = { project: "default", name: "debian" };
  const image = await client.require(imageKind, ref);
  await expect(client.exportImage(ref, "tar", agent.signal)).rejects.toMatchObject({ code: "Conflict" });
  await client.patchStatus(imageKind, ref, image.metadata.uid, { host: "one", state: "ready" });
  const requests: SessionRequest[] = [];
  void runAgent((request, channel) => {
    requests.push(request);
    void channel.send(1, Buffer.from("root tree")).then(() => channel.close());
  });
  const collected = collect(await client.exportImage(ref, "tar", agent.signal));
  expect(await collected.closed).toBeUndefined();
  expect(collected.data).toBe("1:root tree ");
  const subject = { ...ref, uid: image.metadata.uid };
  const parameters = { format: "tar" };
  expect(requests).toEqual([{ id: expect.any(String), verb: "export", image: subject, parameters }]);
  await expect(client.exportImage(ref, "zip" as "tar", agent.signal)).rejects.toMatchObject({
    fields: [{ path: "?format" }],
  });
});

test("what an image's build printed comes from the host that makes it, whole or not at all", async () => {
  const ref = { project: "default", name: "debian" };
  const image = await client.require(imageKind, ref);
  await client.patchStatus(imageKind, ref, image.metadata.uid, { host: "one", state: "failed" });
  const text = Buffer.from("step 1\nthe reason\n");
  const sums = [hash("sha256", text), "0".repeat(64)];
  const requests: SessionRequest[] = [];
  void runAgent((request, channel) => {
    requests.push(request);
    void channel.send(1, text).then(() => {
      channel.sendControl({ type: "done", sizeBytes: text.length, sha256: sums.shift() ?? "" });
      channel.close();
    });
  });
  expect(await client.buildLog(ref)).toBe(text.toString());
  const subject = { ...ref, uid: image.metadata.uid };
  expect(requests).toEqual([{ id: expect.any(String), verb: "build-log", image: subject, parameters: {} }]);
  await expect(client.buildLog(ref)).rejects.toMatchObject({ code: "Unavailable" });
});

test("large data arrives whole, and a reader that stops stops the sender", async () => {
  const total = 32 * 1024 * 1024;
  let sent = 0;
  void runAgent((_request, channel) => {
    void (async () => {
      const chunk = Buffer.alloc(64 * 1024, 1);
      for (; sent < total; sent += chunk.length) await channel.send(1, chunk);
      channel.close();
    })();
  });
  const channel = await client.openSession("log", web, {}, agent.signal);
  // Nobody listens yet, so the stream is paused: only what fits in the buffers between may have been sent.
  let before = -1;
  while (sent !== before) {
    before = sent;
    for (let i = 0; i < 20; i++) await client.version();
  }
  expect(sent).toBeGreaterThan(0);
  expect(sent).toBeLessThan(total / 2);
  let received = 0;
  const { promise: closed, resolve } = Promise.withResolvers<Error | undefined>();
  channel.onData = (_number, data) => {
    received += data.length;
  };
  channel.onClose = resolve;
  expect(await closed).toBeUndefined();
  expect(received).toBe(total);
});

test("an error of the agent is the client's, with its code", async () => {
  void runAgent((_request, channel) => {
    channel.sendControl({
      type: "error",
      problem: { code: "Unsupported", detail: "this driver has no console" },
    });
    channel.close();
  });
  const channel = await client.openSession("console", web, {}, agent.signal);
  expect(await collect(channel).closed).toMatchObject({
    code: "Unsupported",
    message: "this driver has no console",
  });
});

test("an agent that vanishes ends the client's side with a reason, a client that vanishes the agent's", async () => {
  const accepted = Promise.withResolvers<{ channel: Channel; collected: Collected }>();
  void runAgent((_request, channel) => accepted.resolve({ channel, collected: collect(channel) }));
  const own = new AbortController();
  const vanishing = await client.openSession("exec", web, { command: ["x"] }, own.signal);
  collect(vanishing);
  const other = await accepted.promise;
  own.abort();
  expect(await other.collected.closed).toMatchObject({ code: "Unavailable" });

  const doomed = new AbortController();
  const running = (async () => {
    for await (const request of client.sessionRequests("one", doomed.signal)) {
      await client.acceptSession(request.id, doomed.signal);
      doomed.abort();
    }
  })();
  const channel = await client
    .openSession("exec", web, { command: ["x"] }, own.signal)
    .catch(() => undefined);
  expect(channel).toBeUndefined();
  const left = await client.openSession("exec", web, { command: ["x"] }, agent.signal);
  expect(await collect(left).closed).toMatchObject({ code: "Unavailable" });
  await running;
});

test("what can be refused is refused before the upgrade, with a code", async () => {
  const open = (verb: "exec" | "log", name = "web") =>
    client.openSession(verb, { project: "default", name }, {}, agent.signal);
  await expect(open("exec", "wbe")).rejects.toMatchObject({
    code: "NotFound",
    message: expect.stringContaining('"web"'),
  });
  await client.patchStatus(instanceKind, web, uid, { state: "stopped" });
  await expect(open("exec")).rejects.toMatchObject({
    code: "Conflict",
    message: expect.stringContaining("start it first"),
  });
  await client.patchStatus(instanceKind, web, uid, { host: null, state: "pending" });
  await expect(open("log")).rejects.toMatchObject({ code: "Conflict" });
  await expect(client.acceptSession("nope", agent.signal)).rejects.toMatchObject({ code: "NotFound" });
  await expect(
    client.sessionRequests("nope", agent.signal)[Symbol.asyncIterator]().next(),
  ).rejects.toMatchObject({
    code: "NotFound",
  });
  const path = "/v1/projects/default/instances/web/exec";
  expect((await raw(api.socketPath, "GET", path)).status).toBe(426);
  for (const parameters of ["x", "[]", "1"]) {
    const socket = new WebSocket(`ws+unix:${api.socketPath}:${path}?parameters=${parameters}`);
    const status = await new Promise((resolve) => {
      socket.on("unexpected-response", (_request, response) => resolve(response.statusCode));
      socket.on("error", resolve);
    });
    expect(status).toBe(400);
  }
});

test("without an agent the client is told so, and gets through once one comes back", async () => {
  await expect(client.openSession("exec", web, {}, agent.signal)).rejects.toMatchObject({
    code: "Unavailable",
    message: expect.stringContaining('"one"'),
  });
  const opening = client.openSession("exec", web, {}, agent.signal);
  void runAgent(echo);
  (await opening).close();
});

test("roles: a viewer reads logs, a member runs commands, an agent's side is open to neither", async () => {
  void runAgent((_request, channel) => channel.close());
  const certificate = testCertificate();
  const { port } = await api.api.listenHttps({ host: "127.0.0.1", port: 0, ...certificate });
  const as = async (role: string) => {
    const { secret } = await api.services.tokens.issue(system, {
      name: role,
      spec: { role, project: "default" },
    });
    return createHttpClient({ url: `https://127.0.0.1:${port}`, ca: certificate.cert, token: secret });
  };
  const [viewer, member] = [await as("viewer"), await as("member")];
  (await viewer.openSession("log", web, {}, agent.signal)).close();
  (await member.openSession("exec", web, {}, agent.signal)).close();
  (await member.openSession("console", web, {}, agent.signal)).close();
  const forbidden = { code: "Forbidden" };
  await expect(viewer.openSession("exec", web, {}, agent.signal)).rejects.toMatchObject(forbidden);
  await expect(viewer.openSession("console", web, {}, agent.signal)).rejects.toMatchObject(forbidden);
  await expect(member.acceptSession("x", agent.signal)).rejects.toMatchObject(forbidden);
  const requests = member.sessionRequests("one", agent.signal)[Symbol.asyncIterator]();
  await expect(requests.next()).rejects.toMatchObject(forbidden);
  const theirs = { project: "theirs", name: "web" };
  await expect(viewer.openSession("log", theirs, {}, agent.signal)).rejects.toMatchObject({
    code: "NotFound",
  });
  await api.services.resources.delete(system, tokenKind, { name: "viewer" });
  await expect(viewer.openSession("log", web, {}, agent.signal)).rejects.toMatchObject({
    code: "Unauthenticated",
  });
  viewer.close();
  member.close();
});

test("closing the API ends sessions and streams in order, and soon", async () => {
  const own = await startTestApi();
  const ownClient = createHttpClient({ socketPath: own.socketPath });
  await createImage(own.services);
  await ownClient.create(hostKind, { name: "one", spec: {} });
  const instance = await ownClient.create(instanceKind, { ...web, spec: { type: "vm", image: "debian" } });
  await ownClient.patchStatus(instanceKind, web, instance.metadata.uid, { host: "one", state: "running" });
  const ended = new AbortController();
  const running = (async () => {
    for await (const request of ownClient.sessionRequests("one", ended.signal)) {
      collect(await ownClient.acceptSession(request.id, ended.signal));
    }
  })();
  const channel = await ownClient.openSession("exec", web, {}, ended.signal);
  const collected = collect(channel);
  await own.close();
  expect(await collected.closed).toMatchObject({ code: "Unavailable" });
  ended.abort();
  await running;
  ownClient.close();
});
