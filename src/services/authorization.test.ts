import { expect, test } from "vitest";
import { StrataError } from "../core/errors.ts";
import { eventKind } from "../kinds/event.ts";
import { hostKind } from "../kinds/host.ts";
import { instanceKind } from "../kinds/instance.ts";
import { keyPairKind } from "../kinds/key-pair.ts";
import type { Kind } from "../kinds/kind.ts";
import { leaseKind } from "../kinds/lease.ts";
import { networkKind } from "../kinds/network.ts";
import { projectKind } from "../kinds/project.ts";
import { kinds } from "../kinds/registry.ts";
import { roles, tokenKind } from "../kinds/token.ts";
import { volumeKind } from "../kinds/volume.ts";
import { authorizeAction, type Principal, systemPrincipal as system } from "./principal.ts";
import type { Services } from "./services.ts";
import { createImage, testServices } from "./testing.ts";
import { afterRevision } from "./watching.ts";

const publicKey = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ test";

function inProject(role: Principal["role"], project = "mine"): Principal {
  return { name: `token:${role}`, role, project };
}

/** `ok`, or the code of the error. */
async function outcome(work: () => Promise<unknown> | unknown): Promise<string> {
  try {
    await work();
    return "ok";
  } catch (error) {
    return error instanceof StrataError ? error.code : String(error);
  }
}

async function twoProjects() {
  const parts = await testServices();
  const { resources } = parts.services;
  for (const project of ["mine", "theirs"]) {
    await resources.create(system, projectKind, { name: project });
    await createImage(parts.services, "debian", project);
    await resources.create(system, keyPairKind, { project, name: "laptop", spec: { publicKey } });
    await resources.create(system, instanceKind, {
      project,
      name: "web",
      spec: { type: "vm", image: "debian" },
    });
    await parts.services.tokens.issue(system, { name: `${project}-ci`, spec: { role: "member", project } });
  }
  await resources.create(system, hostKind, { name: "one" });
  await resources.create(system, leaseKind, {
    name: "one",
    spec: { holder: "one", durationMs: 1000, renewedAt: "2030-01-01T00:00:00Z" },
  });
  return parts;
}

const verbs: Record<string, (services: Services, principal: Principal, project: string) => unknown> = {
  get: ({ resources }, who, project) => resources.require(who, keyPairKind, { project, name: "laptop" }),
  list: ({ resources }, who, project) => resources.list(who, keyPairKind, { project }),
  watch: ({ resources }, who, project) =>
    resources.watch(who, keyPairKind, { project, from: afterRevision(0) }, AbortSignal.abort()),
  create: ({ resources }, who, project) =>
    resources.create(who, keyPairKind, { project, name: "new", spec: { publicKey } }),
  apply: ({ resources }, who, project) =>
    resources.apply(who, keyPairKind, { project, name: "laptop", spec: { publicKey }, labels: { a: "b" } }),
  patch: ({ resources }, who, project) =>
    resources.patch(who, keyPairKind, { project, name: "laptop" }, { labels: { a: "b" } }),
  delete: ({ resources }, who, project) => resources.delete(who, keyPairKind, { project, name: "laptop" }),
  exec: (_services, who, project) => authorizeAction(who, instanceKind, project, "exec"),
  patchStatus: ({ resources }, who, project) =>
    resources.patchStatus(who, instanceKind, { project, name: "web" }, "x", {}),
  removeFinalizer: ({ resources }, who, project) =>
    resources.removeFinalizer(who, instanceKind, { project, name: "web" }, "x", "agent"),
};

const reads = ["get", "list", "watch"];
const writes = ["create", "apply", "patch", "delete", "exec"];

test.each(Object.keys(verbs).flatMap((verb) => roles.map((role) => ({ verb, role }))))(
  "$role may $verb as the table says, and elsewhere there is nothing",
  async ({ verb, role }) => {
    const { services } = await twoProjects();
    const run = verbs[verb];
    if (!run) throw new Error(verb);
    const who = inProject(role);
    const expected =
      reads.includes(verb) || (writes.includes(verb) && role !== "viewer") ? "ok" : "Forbidden";
    expect(await outcome(() => run(services, who, "mine"))).toBe(expected);
    const elsewhere = await outcome(() => run(services, who, "theirs"));
    expect(elsewhere).toBe(["patchStatus", "removeFinalizer"].includes(verb) ? "Forbidden" : "NotFound");
  },
);

test("another project answers word for word like one that does not exist", async () => {
  const { services } = await twoProjects();
  for (const role of roles) {
    for (const run of Object.values(verbs)) {
      const told = async (project: string) => {
        try {
          await run(services, inProject(role), project);
          return "ok";
        } catch (error) {
          return String(error).replaceAll(project, "PROJECT");
        }
      };
      expect(await told("theirs")).toBe(await told("nowhere"));
    }
  }
});

test("internal kinds are read by their project and written by nobody in it", async () => {
  const { services } = await twoProjects();
  const volume = { project: "mine", name: "web-root" };
  const subject = { kind: "Instance", name: "web", uid: "x" };
  const event = { subject, severity: "normal", reason: "Faked", message: "" };
  for (const role of roles) {
    const who = inProject(role);
    const { resources } = services;
    expect((await resources.require(who, volumeKind, volume)).metadata.name).toBe("web-root");
    expect(
      await outcome(() => resources.create(who, eventKind, { project: "mine", name: "e1", spec: event })),
    ).toBe("Forbidden");
  }
});

test("of the cluster a project's token sees its project, an admin's also its tokens", async () => {
  const { services } = await twoProjects();
  const { resources } = services;
  for (const role of roles) {
    const who = inProject(role);
    const seen = await resources.list(who, projectKind, {});
    expect(seen.items.map((item) => item.metadata.name)).toEqual(["mine"]);
    expect(await outcome(() => resources.require(who, projectKind, { name: "theirs" }))).toBe("NotFound");
    expect(await outcome(() => resources.delete(who, projectKind, { name: "mine" }))).toBe("Forbidden");
    const quota = { spec: { quota: {} } };
    expect(await outcome(() => resources.patch(who, projectKind, { name: "mine" }, quota))).toBe("Forbidden");
    expect(await outcome(() => resources.list(who, hostKind, {}))).toBe("Forbidden");
    expect(await outcome(() => resources.list(who, leaseKind, {}))).toBe("Forbidden");
    expect(await outcome(() => resources.list(who, tokenKind, {}))).toBe(
      role === "admin" ? "ok" : "Forbidden",
    );
  }
  const admin = inProject("admin");
  const tokens = await resources.list(admin, tokenKind, {});
  expect(tokens.items.map((item) => item.metadata.name)).toEqual(["mine-ci"]);
  expect(await outcome(() => resources.require(admin, tokenKind, { name: "theirs-ci" }))).toBe("NotFound");
  expect(await outcome(() => resources.delete(admin, tokenKind, { name: "theirs-ci" }))).toBe("NotFound");
  expect(await outcome(() => resources.delete(admin, tokenKind, { name: "mine-ci" }))).toBe("ok");
});

test("a project's admin issues tokens of its project and no others", async () => {
  const { services } = await twoProjects();
  const issue = (who: Principal, spec: object) =>
    outcome(() => services.tokens.issue(who, { name: "made", spec }));
  const admin = inProject("admin");
  expect(await issue(admin, { role: "admin" })).toBe("Forbidden");
  expect(await issue(admin, { role: "viewer", project: "theirs" })).toBe("Forbidden");
  expect(await issue(admin, { role: "viewer", project: "nowhere" })).toBe("Forbidden");
  expect(await issue(inProject("member"), { role: "viewer", project: "mine" })).toBe("Forbidden");
  expect(await issue(admin, { role: "admin", project: "mine" })).toBe("ok");
});

test("lists and watches across projects show a project's token its own", async () => {
  const { services } = await twoProjects();
  for (const kind of kinds as readonly Kind[]) {
    if (kind.scope !== "project") continue;
    const { items } = await services.resources.list(inProject("viewer"), kind, {});
    for (const item of items) expect(item.metadata.project).toBe("mine");
  }
  const ended = new AbortController();
  const events = await services.resources.watch(
    inProject("viewer"),
    networkKind,
    { from: afterRevision(0) },
    ended.signal,
  );
  const seen: string[] = [];
  for await (const event of events) {
    if (event.type === "put") seen.push(event.resource.metadata.project ?? "");
    break;
  }
  ended.abort();
  expect(seen).toEqual(["mine"]);
});

test("a watch of tokens tells a project's admin nothing of others, not even their deletion", async () => {
  const { services, store } = await twoProjects();
  const from = afterRevision(await store.revision());
  const ended = new AbortController();
  const events = await services.resources.watch(inProject("admin"), tokenKind, { from }, ended.signal);
  await services.tokens.issue(system, { name: "hidden", spec: { role: "admin" } });
  for (const name of ["theirs-ci", "hidden", "mine-ci"]) {
    await services.resources.delete(system, tokenKind, { name });
  }
  for await (const event of events) {
    expect(event).toMatchObject({ type: "delete", ref: { name: "mine-ci" } });
    break;
  }
  ended.abort();
});

test("a principal without a project that is no admin only reads", async () => {
  const { services } = await twoProjects();
  const auditor: Principal = { name: "auditor", role: "member" };
  for (const [verb, run] of Object.entries(verbs)) {
    expect(await outcome(() => run(services, auditor, "mine")), verb).toBe(
      reads.includes(verb) ? "ok" : "Forbidden",
    );
  }
});
