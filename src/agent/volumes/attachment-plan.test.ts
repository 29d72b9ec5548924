import { expect, test } from "vitest";
import { type Volume, volumeKind } from "../../kinds/volume.ts";
import { handle, instanceOf, rootVolume } from "../instances/testing.ts";
import { deletedAt } from "../networks/testing-resources.ts";
import { type AttachmentWorld, planAttachment, type VolumeHolder } from "./attachment-plan.ts";

const web = instanceOf();
const leaving = { ...web, metadata: { ...web.metadata, ...deletedAt } };
const plugged: Partial<Volume["status"]> = { host: "alpha", instance: "web" };

function volumeOf(spec: Partial<Volume["spec"]>, status: Partial<Volume["status"]> = {}): Volume {
  const parsed = volumeKind.spec.parse({ sizeMib: 64, fileSystem: "ext4", ...spec });
  const { metadata } = rootVolume();
  const { owner, ...own } = metadata;
  return {
    kind: "Volume",
    metadata: { ...own, name: "data", finalizers: ["agent"] },
    spec: parsed,
    status: { ...volumeKind.initialStatus(), state: "available", message: "", ...status },
  };
}

function holder(change: Partial<VolumeHolder> = {}): VolumeHolder {
  const reach = { driver: "fake", handle, canPlug: true };
  return { instance: web, guest: "running", sizeMib: undefined, reach, ...change };
}

interface Row {
  name: string;
  spec?: Partial<Volume["spec"]>;
  status?: Partial<Volume["status"]>;
  deleted?: true;
  world?: Partial<AttachmentWorld>;
  actions?: string[];
  state?: Volume["status"]["state"];
  message?: RegExp;
}

const plain = { driver: "docker", handle, canPlug: false };
const forWeb = { instance: "web" };
const wanted = { wanted: web };
const attaching = { ...plugged, state: "attaching" } as const;
const attached = { ...plugged, state: "attached", sizeMib: 64 } as const;

test.each<Row>([
  { name: "nobody's", state: "available" },
  { name: "nobody's, on another host", status: { host: "beta" } },
  { name: "wanted for an instance that is not here", spec: forWeb },
  { name: "wanted for one here: recorded first", spec: forWeb, world: wanted, actions: ["claim"] },
  {
    name: "wanted for one here, but its bytes are elsewhere",
    spec: forWeb,
    status: { host: "beta" },
    world: wanted,
  },
  { name: "wanted for one that goes", spec: forWeb, world: { wanted: leaving } },
  {
    name: "recorded: given to the guest",
    spec: forWeb,
    status: attaching,
    world: { wanted: web, current: holder() },
    actions: ["plug"],
    state: "attaching",
  },
  {
    name: "in the guest",
    spec: forWeb,
    status: attaching,
    world: { wanted: web, current: holder({ sizeMib: 64 }) },
    state: "attached",
    message: /^$/,
  },
  {
    name: "in the guest, as the status knows after a restart of the agent",
    spec: forWeb,
    status: attached,
    world: { wanted: web, current: holder() },
    state: "attached",
  },
  {
    name: "was to be attached when the agent was restarted: done again",
    spec: forWeb,
    status: attaching,
    world: { wanted: web, current: holder() },
    actions: ["plug"],
    state: "attaching",
  },
  {
    name: "grown",
    spec: { ...forWeb, sizeMib: 128 },
    status: attached,
    world: { wanted: web, current: holder({ sizeMib: 64 }) },
    actions: ["plug"],
    state: "attached",
    message: /growing/,
  },
  {
    name: "its guest does not run",
    spec: forWeb,
    status: attaching,
    world: { wanted: web, current: holder({ guest: "idle", reach: undefined }) },
    state: "attached",
    message: /when the instance "web" starts/,
  },
  {
    name: "its guest starts: nobody touches it",
    spec: forWeb,
    status: attaching,
    world: { wanted: web, current: holder({ guest: "starting", reach: undefined }) },
    state: "attaching",
  },
  {
    name: "a driver that cannot",
    spec: forWeb,
    status: attaching,
    world: { wanted: web, current: holder({ reach: plain }) },
    state: "attaching",
    message: /driver docker has no volumes/,
  },
  {
    name: "its instance is being deleted: as it is until that is gone",
    spec: forWeb,
    status: attached,
    world: { wanted: leaving, current: holder({ instance: leaving }) },
  },
  {
    name: "taken away from a running guest",
    status: attached,
    world: { current: holder({ sizeMib: 64 }) },
    actions: ["unplug", "release"],
    state: "detaching",
  },
  {
    name: "taken away from one that does not run",
    status: attached,
    world: { current: holder({ guest: "idle" }) },
    actions: ["release"],
    state: "detaching",
  },
  {
    name: "taken away from one that starts: not yet",
    status: attached,
    world: { current: holder({ guest: "starting", reach: undefined }) },
    state: "detaching",
    message: /once its instance has started/,
  },
  { name: "its instance is gone", status: attached, actions: ["release"], state: "detaching" },
  {
    name: "wanted for another one: leaves the first one first",
    spec: { instance: "other" },
    status: attached,
    world: { wanted: instanceOf({ metadata: { name: "other" } }), current: holder() },
    actions: ["unplug", "release"],
    state: "detaching",
  },
  { name: "attached on another host", spec: forWeb, status: { ...attached, host: "beta" }, world: wanted },
  {
    name: "to be made from a snapshot: copied before anybody has it",
    spec: { ...forWeb, source: { snapshot: "monday" } },
    status: { host: "alpha", state: "pending" },
    world: { wanted: web, source: "snapshot-uid" },
    actions: ["copy"],
  },
  {
    name: "its snapshot is gone",
    spec: { source: { snapshot: "monday" } },
    status: { host: "alpha", state: "pending" },
    state: "failed",
    message: /source was deleted/,
  },
  {
    name: "one that failed is nobody's",
    spec: { ...forWeb, source: { snapshot: "monday" } },
    status: { host: "alpha", state: "failed" },
    world: wanted,
  },
  { name: "deleted", status: { host: "alpha" }, deleted: true, actions: ["remove-disk", "finalize"] },
  { name: "deleted, on another host", status: { host: "beta" }, deleted: true },
  {
    name: "deleted while attached (with its project): taken away first",
    spec: forWeb,
    status: attached,
    deleted: true,
    world: { wanted: web, current: holder() },
    actions: ["unplug", "release"],
    state: "detaching",
  },
])("$name", ({ spec = {}, status, deleted, world, actions = [], state, message }) => {
  const plain = volumeOf(spec, status);
  const volume = deleted ? { ...plain, metadata: { ...plain.metadata, ...deletedAt } } : plain;
  const nobody = { wanted: undefined, current: undefined, source: undefined, waiting: false };
  const plan = planAttachment({ hostName: "alpha", volume, ...nobody, ...world });
  expect(plan.actions.map(({ type }) => type)).toEqual(actions);
  expect(plan.status?.state).toBe(state);
  if (message) expect(plan.status?.message).toMatch(message);
});

test("where it is depends on the type of the instance", () => {
  const volume = volumeOf(forWeb, attaching);
  const planned = (type: "vm" | "container") => {
    const instance = instanceOf({ spec: { type } });
    const current = holder({ instance, sizeMib: 64 });
    const world = { hostName: "alpha", volume, wanted: instance, current, source: undefined, waiting: false };
    return planAttachment(world).status?.device;
  };
  expect(planned("container")).toBe("/mnt/data");
  expect(planned("vm")).toBe(`/dev/disk/by-id/scsi-0QEMU_QEMU_HARDDISK_${volume.metadata.uid}`);
});
