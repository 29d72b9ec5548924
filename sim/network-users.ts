import type { Client } from "../src/client/client.ts";
import { addressKind } from "../src/kinds/address.ts";
import { type Instance, instanceKind } from "../src/kinds/instance.ts";
import type { Kind, Resource } from "../src/kinds/kind.ts";
import { networkKind } from "../src/kinds/network.ts";
import { networkInterfaceKind } from "../src/kinds/network-interface.ts";
import { peeringKind } from "../src/kinds/peering.ts";
import { publishedPortKind } from "../src/kinds/published-port.ts";
import { securityGroupKind } from "../src/kinds/security-group.ts";
import type { Chance } from "./chance.ts";

interface NetworkUsersOptions {
  client: Client;
  chance: Chance;
  newName: (prefix: string) => string;
}

/** Of one kind in one project. */
const most = 5;

/** People who work on networks while instances come and go. */
export class NetworkUsers {
  readonly #options: NetworkUsersOptions;

  constructor(options: NetworkUsersOptions) {
    this.#options = options;
  }

  readonly actions: readonly (readonly [string, () => Promise<string>])[] = [
    ["interface", () => this.#interface()],
    ["interface", () => this.#interface()],
    ["plug", () => this.#move(networkInterfaceKind)],
    ["plug", () => this.#move(networkInterfaceKind)],
    ["port", () => this.#port()],
    ["address", () => this.#address()],
    ["move address", () => this.#move(addressKind)],
    ["group", () => this.#group()],
    ["groups of", () => this.#groupsOf()],
    ["peering", () => this.#peering()],
    ["unpublish", () => this.#deleteOne()],
    ["cpus", () => this.#cpus()],
  ];

  async #interface(): Promise<string> {
    const { chance, client } = this.#options;
    const network = chance.pick((await client.list(networkKind, {})).items);
    if (!network) return "nothing";
    const { project = "", name } = network.metadata;
    const instance = chance.happens(0.6) ? await this.#instanceIn(project) : undefined;
    const spec = { network: name, ...(instance ? { instance: instance.metadata.name } : {}) };
    return this.#create(networkInterfaceKind, project, "n", spec);
  }

  async #port(): Promise<string> {
    const { chance } = this.#options;
    const instance = await this.#anyInstance();
    if (!instance) return "nothing";
    const { project = "", name } = instance.metadata;
    const spec = { port: chance.between(1_000, 1_020), targetPort: 80, instance: name };
    return this.#create(publishedPortKind, project, "p", spec);
  }

  async #address(): Promise<string> {
    const instance = await this.#anyInstance();
    if (!instance) return "nothing";
    const { project = "", name } = instance.metadata;
    return this.#create(addressKind, project, "a", { instance: name });
  }

  /** To another instance or to nobody. */
  async #move(kind: typeof networkInterfaceKind | typeof addressKind): Promise<string> {
    const { chance, client } = this.#options;
    const one = chance.pick((await client.list(kind as Kind, {})).items);
    if (!one) return "nothing";
    const { project = "", name } = one.metadata;
    const instance = chance.happens(0.7) ? await this.#instanceIn(project) : undefined;
    await client.patch(
      kind as Kind,
      { project, name },
      { spec: { instance: instance?.metadata.name ?? null } as never },
    );
    return `${project}/${name} to ${instance?.metadata.name ?? "nobody"}`;
  }

  async #group(): Promise<string> {
    const { chance, client } = this.#options;
    const groups = (await client.list(securityGroupKind, {})).items;
    const group = chance.pick(groups);
    if (!group || chance.happens(0.3)) {
      return this.#create(securityGroupKind, group?.metadata.project ?? "default", "g", {});
    }
    const { project = "", name } = group.metadata;
    const rules = Array.from({ length: chance.below(4) }, () => ({
      protocol: "tcp" as const,
      ports: String(chance.between(1, 100)),
      description: "",
      ...(chance.happens(0.5) ? { cidr: "10.0.0.0/8" } : { group: name }),
    }));
    await client.patch(securityGroupKind, { project, name }, { spec: { ingress: rules } as never });
    return `${project}/${name}`;
  }

  async #groupsOf(): Promise<string> {
    const { chance, client } = this.#options;
    const instance = await this.#anyInstance();
    if (!instance) return "nothing";
    const { project = "", name } = instance.metadata;
    const groups = (await client.list(securityGroupKind, { project })).items;
    const picked = groups.filter(() => chance.happens(0.5)).map(({ metadata }) => metadata.name);
    await client.patch(instanceKind, { project, name }, { spec: { securityGroups: picked } });
    return `${project}/${name}`;
  }

  /** Two projects' default networks never overlap: each side is created by itself. */
  async #peering(): Promise<string> {
    const { chance, client } = this.#options;
    const peering = chance.pick((await client.list(peeringKind, {})).items);
    if (peering && chance.happens(0.4)) return this.#delete(peeringKind as Kind, peering);
    const [project, peerProject] = chance.happens(0.5) ? ["default", "lab"] : ["lab", "default"];
    const spec = chance.happens(0.5)
      ? { network: "default", peerNetwork: "default", peerProject }
      : { network: "default", peerNetwork: "second" };
    return this.#create(peeringKind, project ?? "", "q", spec);
  }

  async #deleteOne(): Promise<string> {
    const { chance, client } = this.#options;
    const kinds = [
      networkInterfaceKind,
      publishedPortKind,
      addressKind,
      securityGroupKind,
    ] as unknown as Kind[];
    const kind = chance.pick(kinds);
    const one = kind && chance.pick((await client.list(kind, {})).items);
    return kind && one ? this.#delete(kind, one) : "nothing";
  }

  async #cpus(): Promise<string> {
    const { chance, client } = this.#options;
    const instance = await this.#anyInstance();
    if (!instance) return "nothing";
    const { project = "", name } = instance.metadata;
    const memoryMib = Math.max(16, Math.floor(instance.spec.memoryMib / chance.between(1, 2)));
    await client.patch(instanceKind, { project, name }, { spec: { cpus: chance.between(1, 4), memoryMib } });
    return `${project}/${name}`;
  }

  async #create<S, T>(kind: Kind<S, T>, project: string, prefix: string, spec: object): Promise<string> {
    const { client, newName } = this.#options;
    if ((await client.list(kind, { project })).items.length >= most) return "nothing: enough";
    const name = newName(prefix);
    await client.create(kind, { project, name, spec: spec as never });
    return `${kind.name} ${project}/${name}`;
  }

  async #delete(kind: Kind, { metadata }: Resource): Promise<string> {
    const { project = "", name } = metadata;
    await this.#options.client.delete(kind, { project, name });
    return `${kind.name} ${project}/${name}`;
  }

  async #anyInstance(): Promise<Instance | undefined> {
    const { chance, client } = this.#options;
    return chance.pick(
      (await client.list(instanceKind, {})).items.filter(({ metadata }) => !metadata.deletedAt),
    );
  }

  async #instanceIn(project: string): Promise<Instance | undefined> {
    const { chance, client } = this.#options;
    return chance.pick((await client.list(instanceKind, { project })).items);
  }
}
