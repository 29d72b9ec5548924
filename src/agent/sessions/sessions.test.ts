import { hash } from "node:crypto";
import { afterEach, beforeEach, expect, test } from "vitest";
import { type AgentBench, agentBench } from "../../../sim/agent-bench.ts";
import type { Channel, Client, InstanceSession, SessionRequest } from "../../client/client.ts";
import type { JsonObject } from "../../core/json.ts";
import { settle } from "../../core/virtual-clock.ts";
import { driftReportSchema } from "../../kinds/drift.ts";
import { imageKind } from "../../kinds/image.ts";
import type { Instance } from "../../kinds/instance.ts";

/** The API's end of sessions: what a client would send and see. */
class Sessions {
  readonly channels = new Map<string, TestChannel>();
  #queue: SessionRequest[] = [];
  #wake = () => {};

  ask(verb: InstanceSession["verb"], instance: Instance, parameters: JsonObject): TestChannel {
    const { project = "", name, uid } = instance.metadata;
    return this.#ask((id) => ({ id, verb, instance: { project, name, uid }, parameters }));
  }

  askForImage(image: { project: string; name: string; uid: string }, format: string): TestChannel {
    return this.#ask((id) => ({ id, verb: "export", image, parameters: { format } }));
  }

  askForLog(image: { project: string; name: string; uid: string }): TestChannel {
    return this.#ask((id) => ({ id, verb: "build-log", image, parameters: {} }));
  }

  #ask(request: (id: string) => SessionRequest): TestChannel {
    const id = `s${this.channels.size}`;
    const channel = new TestChannel();
    this.channels.set(id, channel);
    this.#queue.push(request(id));
    this.#wake();
    return channel;
  }

  get client(): Pick<Client, "sessionRequests" | "acceptSession"> {
    const next = () => this.#queue.shift();
    const wait = (signal: AbortSignal) =>
      new Promise<void>((resolve) => {
        this.#wake = resolve;
        signal.addEventListener("abort", () => resolve(), { once: true });
      });
    return {
      async *sessionRequests(_host, signal) {
        while (!signal.aborted) {
          const request = next();
          if (request) yield request;
          else await wait(signal);
        }
      },
      acceptSession: async (id) => this.channels.get(id) ?? Promise.reject(new Error("no such session")),
    };
  }
}

class TestChannel implements Channel {
  output = "";
  errors = "";
  readonly controls: JsonObject[] = [];
  closed = false;
  paused = false;
  onData: Channel["onData"] = () => {};
  onControl: Channel["onControl"] = () => {};
  onClose: Channel["onClose"] = () => {};
  async send(channel: number, data: Uint8Array) {
    if (channel === 1) this.output += Buffer.from(data).toString();
    else this.errors += Buffer.from(data).toString();
  }
  sendControl(message: JsonObject) {
    this.controls.push(message);
  }
  pause() {
    this.paused = true;
  }
  resume() {
    this.paused = false;
  }
  close() {
    this.closed = true;
  }
  type(text: string) {
    this.onData(0, Buffer.from(text));
  }
}

let sessions: Sessions;
let bench: AgentBench;
let web: Instance;

beforeEach(async () => {
  sessions = new Sessions();
  bench = await agentBench();
  await bench.stopAgent();
  const { sessionRequests, acceptSession } = sessions.client;
  const client = new Proxy(bench.client, {
    get(target, name: keyof Client) {
      if (name === "sessionRequests") return sessionRequests;
      return name === "acceptSession" ? acceptSession : target[name];
    },
  });
  bench.startAgent({ client });
  await bench.createImage();
  await bench.createInstance("web");
  web = await bench.until("web", (instance) => instance.status.state === "running");
});
afterEach(() => bench.stop());

const until = (what: string, condition: () => boolean) => bench.waitFor(what, condition, 5_000);

test("a command's output and exit status come back", async () => {
  const channel = sessions.ask("exec", web, { command: ["echo", "hello"] });
  await until("the session is over", () => channel.closed);
  expect(channel.output).toBe("hello\n");
  expect(channel.controls).toEqual([{ type: "exit", status: 0 }]);
});

test("what is typed before the command runs is not lost", async () => {
  const channel = sessions.ask("exec", web, { command: ["cat"] });
  await until("somebody listens", () => channel.onData.length > 0);
  channel.type("early ");
  channel.type("bird");
  channel.onControl({ type: "stdin-end" });
  await until("the session is over", () => channel.closed);
  expect(channel.output).toBe("early bird");
  expect(channel.paused).toBe(false);
});

test.each<[string, InstanceSession["verb"], JsonObject, string]>([
  ["no command", "exec", {}, "Invalid"],
  ["an unknown parameter", "log", { tail: 3 }, "Invalid"],
  ["a wrong name of a variable", "exec", { command: ["env"], env: { "A=B": "x" } }, "Invalid"],
])("%s is refused through the channel", async (_name, verb, parameters, code) => {
  const channel = sessions.ask(verb, web, parameters);
  await until("the session is over", () => channel.closed);
  expect(channel.controls).toEqual([{ type: "error", problem: { code, detail: expect.any(String) } }]);
});

test("another instance of the same name is not mistaken for this one", async () => {
  const other = { ...web, metadata: { ...web.metadata, uid: "0".repeat(16) as typeof web.metadata.uid } };
  const channel = sessions.ask("exec", other, { command: ["true"] });
  await until("the session is over", () => channel.closed);
  expect(channel.controls).toMatchObject([{ type: "error", problem: { code: "NotFound" } }]);
});

test("the console log, then what comes", async () => {
  const channel = sessions.ask("log", web, { follow: true });
  await until("the log so far", () => channel.output.includes("login:"));
  bench.host.world.print(web.metadata.uid, "kernel: more\n");
  await until("what comes", () => channel.output.includes("more"));
  expect(channel.closed).toBe(false);
  channel.onClose();
  await until("it ends with its client", () => channel.closed);
});

test("a console is taken once, and free again when its client leaves", async () => {
  const first = sessions.ask("console", web, {});
  await settle();
  await settle();
  const second = sessions.ask("console", web, {});
  await until("the second is refused", () => second.closed);
  expect(second.controls).toMatchObject([{ type: "error", problem: { code: "Conflict" } }]);
  first.onClose();
  await until("the first is over", () => first.closed);
  const third = sessions.ask("console", web, {});
  await settle();
  bench.host.world.print(web.metadata.uid, "again\n");
  await until("the third sees what comes", () => third.output.includes("again"));
});

test("what differs from the image comes whole, with its checksum", async () => {
  bench.host.world.write(web.metadata.uid, "etc/motd", "ho");
  bench.host.world.write(web.metadata.uid, "etc/hostname", "web");
  const channel = sessions.ask("drift", web, {});
  await until("the session is over", () => channel.closed);
  const report = driftReportSchema.parse(JSON.parse(channel.output));
  expect(report).toMatchObject({ imageDigest: web.status.imageDigest, reading: "running" });
  expect(report.differences).toEqual([
    expect.objectContaining({ path: "/etc/hostname", change: "added", usual: "identity of the machine" }),
    { path: "/etc/motd", change: "changed", type: "file", aspects: ["content"] },
  ]);
  const sizeBytes = channel.output.length;
  expect(channel.controls).toEqual([{ type: "done", sizeBytes, sha256: hash("sha256", channel.output) }]);
});

test("an image's content comes with its size and checksum", async () => {
  const image = await bench.client.require(imageKind, { project: "default", name: "debian" });
  const subject = { project: "default", name: "debian", uid: image.metadata.uid };
  const channel = sessions.askForImage(subject, "qcow2");
  await until("the session is over", () => channel.closed);
  expect(channel.output).toBe(`qcow2 of ${image.status.digest}`);
  const sizeBytes = channel.output.length;
  expect(channel.controls).toEqual([{ type: "done", sizeBytes, sha256: hash("sha256", channel.output) }]);
});

test("what an image's build printed comes whole; of an image without a log, an error", async () => {
  const image = await bench.client.require(imageKind, { project: "default", name: "debian" });
  const subject = { project: "default", name: "debian", uid: image.metadata.uid };
  const none = sessions.askForLog(subject);
  await until("the session is over", () => none.closed);
  expect(none.controls).toMatchObject([{ type: "error", problem: { code: "NotFound" } }]);
  bench.host.buildLogs.set(image.metadata.uid, "step 1\n");
  const channel = sessions.askForLog(subject);
  await until("the session is over", () => channel.closed);
  expect(channel.output).toBe("step 1\n");
  expect(channel.controls).toMatchObject([{ type: "done", sizeBytes: 7 }]);
});

test("an image that is another one, or a format that is none, is refused through the channel", async () => {
  const wrong = sessions.askForImage({ project: "default", name: "debian", uid: "0".repeat(16) }, "tar");
  await until("the session is over", () => wrong.closed);
  expect(wrong.controls).toMatchObject([{ type: "error", problem: { code: "NotFound" } }]);
  const image = await bench.client.require(imageKind, { project: "default", name: "debian" });
  const subject = { project: "default", name: "debian", uid: image.metadata.uid };
  const none = sessions.askForImage(subject, "zip");
  await until("the session is over", () => none.closed);
  expect(none.controls).toMatchObject([{ type: "error", problem: { code: "Invalid" } }]);
});

test("sessions end when the agent stops", async () => {
  const channel = sessions.ask("log", web, { follow: true });
  await until("it is open", () => channel.output !== "");
  await bench.stopAgent();
  expect(channel.closed).toBe(true);
});
