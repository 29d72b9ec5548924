import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { createImage } from "../services/testing.ts";
import { raw, startTestApi, type TestApi } from "./testing.ts";

/** What users get wrong about groups: one problem each, with the place, the value and what would be right. */

let api: TestApi;
const base = "/v1/projects/default";
const template = { type: "container", image: "debian" };

const send = (method: string, path: string, content?: object) =>
  raw(api.socketPath, method, `${base}/${path}`, content ? { body: JSON.stringify(content) } : {});
const post = (plural: string, name: string, spec: object) =>
  send("POST", plural, { metadata: { name }, spec });

async function make(plural: string, name: string, spec: object): Promise<void> {
  const answer = await post(plural, name, spec);
  if (answer.status !== 201) throw new Error(`${plural} ${name}: ${answer.text}`);
}

const publicKey = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKJ6s0GHlyt8sVTcSQ6b3vMKXkWnJ8Yb3dQe1P1M0Ahy me";

beforeAll(async () => {
  api = await startTestApi();
  await createImage(api.services);
  await createImage(api.services, "other");
  await make("networks", "lan", { cidr: "10.1.0.0/16", subnets: "custom" });
  await make("subnets", "a", { network: "lan", cidr: "10.1.0.0/24" });
  await make("security-groups", "web", {});
  await make("key-pairs", "me", { publicKey });
  await make("groups", "web", {
    template: { ...template, network: "lan", subnet: "a", securityGroups: ["web"], keyPairs: ["me"] },
    max: 4,
  });
});

afterAll(() => api.close());

const jobs = { type: "target", name: "jobs", metric: "custom/jobs", target: 5 };
const calendar = (event: object, more: object = {}) => ({
  type: "calendar",
  name: "term",
  calendar: { events: [{ name: "rush", ...event }], ...more },
});

/** `refusal`: the field, and what its message names. */
type Row = [what: string, spec: object, refusal: string];

const rows: Row[] = [
  ["min more than max", { min: 5, max: 2 }, "spec.min | is 5, more than max (2)"],
  ["desired beyond max", { max: 2, desired: 3 }, "spec.desired | is 3; it must lie between"],
  ["desired below min", { min: 2, max: 4, desired: 1 }, "spec.desired | is 1"],
  ["more members than there may be", { max: 5_000 }, "spec.max | 1000"],
  ["a surge of none", { update: { maxSurge: 0 } }, "spec.update.maxSurge | 1"],
  [
    "an image that does not exist",
    { template: { ...template, image: "debain" } },
    'spec.template.image | did you mean "debian"',
  ],
  [
    "a network that does not exist",
    { template: { ...template, network: "lon" } },
    'spec.template.network | did you mean "lan"',
  ],
  [
    "a network of several subnets, and none named",
    { template: { ...template, network: "lan", subnet: "b" } },
    "spec.template.subnet | b",
  ],
  [
    "a security group that does not exist",
    { template: { ...template, securityGroups: ["wab"] } },
    'spec.template.securityGroups[0] | did you mean "web"',
  ],
  [
    "a key pair that does not exist",
    { template: { ...template, keyPairs: ["mee"] } },
    'spec.template.keyPairs[0] | did you mean "me"',
  ],
  [
    "an address of one instance",
    { template: { ...template, ipAddress: "10.0.0.9" } },
    "spec.template.ipAddress | is not a known field",
  ],
  [
    "an application without docker",
    { template: { ...template, application: { command: ["x"] } } },
    "spec.template.driver | docker",
  ],
  [
    "a VM of docker",
    { template: { ...template, type: "vm", driver: "docker" } },
    "spec.template.type | docker",
  ],
  [
    "a health check without a port",
    { template: { ...template, healthCheck: { type: "http" } } },
    "spec.template.healthCheck.port | must be given for type http",
  ],
  [
    "a health check of two sorts",
    { template: { ...template, healthCheck: { type: "command", command: ["x"], port: 1 } } },
    "spec.template.healthCheck.port | is not for type command",
  ],
  ["no template", { template: undefined }, "spec.template | "],
  [
    "a metric that nobody knows",
    { policies: [{ ...jobs, metric: "jobs" }] },
    "spec.policies[0].metric | custom/NAME",
  ],
  ["two policies of one name", { policies: [jobs, jobs] }, "spec.policies[1].name | a second time"],
  ["a target of nothing", { policies: [{ ...jobs, target: 0 }] }, "spec.policies[0].target | 0"],
  [
    "a time zone that does not exist",
    {
      policies: [
        calendar({ every: "day", from: "08:00", until: "18:00", min: 1 }, { timeZone: "Europe/Berlen" }),
      ],
    },
    "spec.policies[0].calendar.timeZone | Europe/Berlen",
  ],
  [
    "a day that never comes",
    { policies: [calendar({ every: "year", from: "02-30", until: "03-01", min: 1 })] },
    "spec.policies[0].calendar.events[0].from | 02-30",
  ],
  [
    "a calendar beyond the group's max",
    { max: 3, policies: [calendar({ every: "day", from: "08:00", until: "18:00", min: 9 })] },
    "spec.policies[0].calendar.events[0].min | 9",
  ],
  [
    "steps that swing",
    {
      max: 9,
      policies: [
        {
          type: "step",
          name: "steps",
          metric: "cpu",
          steps: [
            { below: 60, change: -4 },
            { from: 60, change: 4 },
          ],
        },
      ],
    },
    "spec.policies[0].steps",
  ],
  ["an unknown field", { maximum: 4 }, "spec.maximum | is not a known field"],
];

const order = (text: string) => text.replaceAll(/\s+/g, " ");

describe("a group is refused with", () => {
  test.each(rows)("%s", async (_what, spec, refusal) => {
    const answer = await post("groups", "refused", { template, max: 9, ...spec });
    const [path = "", ...words] = refusal.split(" | ");
    expect(answer.status).toBe(400);
    const error = JSON.parse(answer.text) as {
      code: string;
      fields: { path: string; message: string; allowed?: string }[];
    };
    expect(error.code).toBe("Invalid");
    const field = error.fields.find((one) => one.path.startsWith(path));
    expect(field, order(answer.text)).toBeDefined();
    for (const word of words) expect(order(`${field?.message} ${field?.allowed ?? ""}`)).toContain(word);
    expect((await send("GET", "groups/refused")).status).toBe(404);
  });
});

describe("what a group names stays", () => {
  test.each(["images/debian", "networks/lan", "subnets/a", "security-groups/web", "key-pairs/me"])(
    "%s",
    async (path) => {
      const answer = await send("DELETE", path);
      expect(answer.status).toBe(409);
      expect(answer.text).toContain('group \\"web\\"');
    },
  );

  test("and may go once the group is gone", async () => {
    expect((await send("DELETE", "images/other")).status).toBeLessThan(300);
    await send("DELETE", "groups/web");
    const group = await api.services.resources.get(
      (await import("../services/principal.ts")).systemPrincipal,
      (await import("../kinds/group.ts")).groupKind,
      { project: "default", name: "web" },
    );
    // It has a finalizer: its controller takes the members away first, and there is none here.
    expect(group?.metadata.deletedAt).toBeDefined();
  });
});

test("the type of a group cannot change, and says so at its place", async () => {
  await make("groups", "typed", { template });
  const answer = await send("PATCH", "groups/typed", { spec: { template: { type: "vm" } } });
  expect(answer.status).toBe(400);
  expect(answer.text).toContain("spec.template.type");
});
