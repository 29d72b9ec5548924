import type { Client } from "../src/client/client.ts";
import { StrataError } from "../src/core/errors.ts";
import { newUid } from "../src/core/ids.ts";
import type { VirtualClock } from "../src/core/virtual-clock.ts";
import { hostKind } from "../src/kinds/host.ts";
import { imageKind } from "../src/kinds/image.ts";
import { type Instance, instanceKind } from "../src/kinds/instance.ts";
import { networkKind } from "../src/kinds/network.ts";
import { projectKind } from "../src/kinds/project.ts";
import { systemPrincipal } from "../src/services/principal.ts";
import type { Services } from "../src/services/services.ts";
import type { Chance } from "./chance.ts";
import { fakeNetwork } from "./fake-host.ts";
import { NetworkUsers } from "./network-users.ts";
import type { SimulatedHost } from "./simulated-host.ts";

interface UsersOptions {
  client: Client;
  services: Services;
  clock: VirtualClock;
  chance: Chance;
  hosts: readonly SimulatedHost[];
  killControllers: () => void;
}

/** Instances in one project at a time. */
const maxInstances = 14;
const projects = ["default", "lab"] as const;

/** People who create, change and delete at random, and the mishaps of their guests and machines. */
export class Users {
  /** What was done, newest last. */
  readonly history: string[] = [];
  readonly counts: Record<string, number> = {};
  /** Uids of instances whose guests somebody or something meant to stop, restart or end. */
  readonly disturbed = new Set<string>();
  readonly #options: UsersOptions;
  #names = 0;

  constructor(options: UsersOptions) {
    this.#options = options;
    const { client, chance } = options;
    const newName = (prefix: string) => `${prefix}${++this.#names}`;
    this.#actions = [...this.#own, ...new NetworkUsers({ client, chance, newName }).actions];
  }

  /** One thing, or one mishap. Refusals of the API are part of life. */
  async act(): Promise<void> {
    const { chance, clock } = this.#options;
    const [name, action] = chance.pick(this.#actions) ?? ["nothing", async () => "nothing"];
    try {
      const what = await action();
      this.counts[name] = (this.counts[name] ?? 0) + 1;
      this.history.push(`${clock.now() - 1_700_000_000_000} ms: ${name} ${what}`);
    } catch (error) {
      if (!(error instanceof StrataError) || error.code === "Internal") throw error;
      this.history.push(`${name} was refused: ${error.message}`);
    }
  }

  readonly #actions: readonly (readonly [string, () => Promise<string>])[];

  readonly #own: readonly (readonly [string, () => Promise<string>])[] = [
    ["create", () => this.#create()],
    ["create", () => this.#create()],
    ["create", () => this.#create()],
    ["create", () => this.#create()],
    ["image", () => this.#createImage()],
    ["power", () => this.#power()],
    ["power", () => this.#power()],
    ["restart", () => this.#restart()],
    ["rebuild", () => this.#rebuild()],
    ["delete", () => this.#delete()],
    ["delete", () => this.#delete()],
    ["kill guest", () => this.#endGuest("crash")],
    ["power off guest", () => this.#endGuest("poweroff")],
    ["kill agent", async () => this.#killAgent()],
    ["kill controllers", async () => this.#killControllers()],
    ["reboot", async () => this.#reboot()],
    ["break network", async () => this.#breakNetwork()],
    ["leave things behind", async () => this.#leaveBehind()],
    ["cordon", () => this.#cordon()],
    ["delete image", () => this.#deleteImage()],
    ["project", () => this.#project()],
    ["nothing", async () => ""],
  ];

  async #create(): Promise<string> {
    const { client, chance } = this.#options;
    const project = chance.pick(projects) ?? "default";
    const instances = await client.list(instanceKind, { project });
    if (instances.items.length >= maxInstances) return "nothing: enough";
    const images = await client.list(imageKind, { project });
    const image = chance.pick(images.items);
    if (!image) return this.#createImage();
    const name = `i${++this.#names}`;
    const networks = await client.list(networkKind, { project });
    const spec = {
      network: chance.pick(networks.items)?.metadata.name ?? "default",
      type: chance.happens(0.3) ? "vm" : "container",
      image: image.metadata.name,
      memoryMib: chance.pick([64, 256, 512, 2_048]) ?? 64,
      restartPolicy: chance.pick(["always", "always", "on-failure", "never"]) ?? "always",
      power: chance.happens(0.1) ? "stopped" : "running",
      services: chance.happens(0.4) ? [{ name: "http", port: 80 }] : [],
    };
    await client.create(instanceKind, { project, name, spec: spec as never });
    return `${project}/${name}`;
  }

  async #createImage(): Promise<string> {
    const { client, chance } = this.#options;
    const project = chance.pick(projects) ?? "default";
    const images = await client.list(imageKind, { project });
    if (images.items.length >= 4) return "nothing: enough images";
    const name = `image${++this.#names}`;
    const packages = chance.pick([[], ["nginx"], ["redis"]]) ?? [];
    await client.create(imageKind, {
      project,
      name,
      spec: { source: { type: "debian", suite: "bookworm", packages } },
    });
    return `${project}/${name}`;
  }

  async #power(): Promise<string> {
    const instance = await this.#anyInstance();
    if (!instance) return "nothing";
    const power = instance.spec.power === "running" ? "stopped" : "running";
    await this.#patch(instance, { power });
    return `${instance.metadata.name} ${power}`;
  }

  async #restart(): Promise<string> {
    const instance = await this.#anyInstance();
    if (!instance) return "nothing";
    await this.#patch(instance, { restarts: instance.spec.restarts + 1 });
    return instance.metadata.name;
  }

  async #rebuild(): Promise<string> {
    const instance = await this.#anyInstance();
    if (!instance) return "nothing";
    await this.#patch(instance, { rebuilds: instance.spec.rebuilds + 1 });
    return instance.metadata.name;
  }

  async #delete(): Promise<string> {
    const { client } = this.#options;
    const instance = await this.#anyInstance();
    if (!instance) return "nothing";
    this.disturbed.add(instance.metadata.uid);
    const { project = "", name } = instance.metadata;
    await client.delete(instanceKind, { project, name });
    return name;
  }

  async #endGuest(reason: "crash" | "poweroff"): Promise<string> {
    const { chance, hosts } = this.#options;
    const world = chance.pick(hosts)?.machine.world;
    const uid = chance.pick([...(world?.guests.keys() ?? [])]);
    if (!world || uid === undefined) return "nothing";
    this.disturbed.add(uid);
    if (reason === "crash") world.kill(uid);
    else world.powerOff(uid);
    return uid;
  }

  #killAgent(): string {
    const host = this.#options.chance.pick(this.#options.hosts);
    host?.killAgent();
    return host?.name ?? "nothing";
  }

  #killControllers(): string {
    this.#options.killControllers();
    return "";
  }

  #reboot(): string {
    const { chance, hosts } = this.#options;
    const host = chance.pick(hosts);
    if (!host || !chance.happens(0.3)) return "nothing";
    for (const uid of host.machine.world.guests.keys()) this.disturbed.add(uid);
    host.reboot();
    return host.name;
  }

  #breakNetwork(): string {
    const { chance, hosts } = this.#options;
    const machine = chance.pick(hosts)?.machine;
    const uid = chance.pick([...(machine?.bridges.keys() ?? [])]);
    if (machine && uid !== undefined) machine.breakNetwork(uid);
    return uid ?? "nothing";
  }

  /** As by a deletion that was forced: things on a host that no resource knows. */
  #leaveBehind(): string {
    const { chance, hosts } = this.#options;
    const machine = chance.pick(hosts)?.machine;
    const [guest] = machine?.world.guests.values() ?? [];
    if (!machine || !guest) return "nothing";
    const uid = newUid(chance.random);
    this.disturbed.add(uid);
    const nics: typeof guest.spec.nics = [];
    machine.world.guests.set(uid, {
      ...structuredClone(guest),
      state: "stopped",
      spec: { ...guest.spec, nics },
    });
    machine.roots.set(uid, "");
    machine.bridges.set(uid, fakeNetwork({ uid }));
    return machine.name;
  }

  async #cordon(): Promise<string> {
    const { client, chance } = this.#options;
    const host = chance.pick((await client.list(hostKind, {})).items);
    if (!host) return "nothing";
    await client.patch(hostKind, { name: host.metadata.name }, { spec: { cordoned: !host.spec.cordoned } });
    return host.metadata.name;
  }

  async #deleteImage(): Promise<string> {
    const { client, chance } = this.#options;
    const image = chance.pick((await client.list(imageKind, {})).items);
    if (!image) return "nothing";
    const { project = "", name } = image.metadata;
    await client.delete(imageKind, { project, name });
    return name;
  }

  /** The second project comes, with a network of its own beside the default one, and goes with all that is in it. */
  async #project(): Promise<string> {
    const { client, services, chance } = this.#options;
    const lab = await client.get(projectKind, { name: "lab" });
    if (!lab) {
      await client.create(projectKind, { name: "lab", spec: {} });
      await client.create(networkKind, { project: "lab", name: "second", spec: {} });
      return "lab created";
    }
    if (!chance.happens(0.3)) return "nothing";
    for (const instance of (await client.list(instanceKind, { project: "lab" })).items) {
      this.disturbed.add(instance.metadata.uid);
    }
    await services.resources.delete(systemPrincipal, projectKind, { name: "lab" }, { cascade: true });
    return "lab deleted";
  }

  async #anyInstance(): Promise<Instance | undefined> {
    const { client, chance } = this.#options;
    const { items } = await client.list(instanceKind, {});
    return chance.pick(items.filter(({ metadata }) => metadata.deletedAt === undefined));
  }

  async #patch(
    instance: Instance,
    spec: { power?: string; restarts?: number; rebuilds?: number },
  ): Promise<void> {
    this.disturbed.add(instance.metadata.uid);
    const { project = "", name } = instance.metadata;
    await this.#options.client.patch(instanceKind, { project, name }, { spec });
  }
}
