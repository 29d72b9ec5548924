import { StrataError } from "../core/errors.ts";
import {
  contains,
  formatIp,
  formatRange,
  type IpRange,
  lastOf,
  parseIp,
  parseRange,
  sizeOf,
} from "../core/ip-range.ts";
import { type Address, addressKind } from "../kinds/address.ts";
import { instanceKind } from "../kinds/instance.ts";
import { immutable, type ResourceOf } from "../kinds/kind.ts";
import type { Store, Write } from "../store/store.ts";
import { addressKey, FreeAddresses } from "./free-addresses.ts";
import type { Admission, KindHooks, World } from "./hooks.ts";
import { conflict, invalid } from "./parse.ts";
import { References } from "./references.ts";

type Status = Address["status"];
type Hooks =
  ResourceOf<typeof addressKind> extends { spec: infer S; status: infer T } ? KindHooks<S, T> : never;

/** Part of the range for shared use (RFC 6598), away from the uplinks of networks: reachable on the host itself. */
const defaultAddressPool = "100.126.0.0/24";
const prefix = "/allocations/addresses/";

/**
 * Floating addresses of one pool: a key each, `/allocations/addresses/` and the address. Each is its project's until it
 * is deleted, whatever instance has it. An instance has one at most, so that what it sends has one source.
 * @throws Invalid when the pool is no range.
 */
export function floatingAddressHooks(store: Store, pool: string = defaultAddressPool): Hooks {
  const range = parsePool(pool);
  const free = new FreeAddresses(store);
  return {
    admit: (address, world, action) => admitAddress({ range, free }, address, world, action),
    async admitUpdate(next, previous, world, action) {
      return next.spec.instance === previous.spec.instance ? [] : bind(next, world, action);
    },
    validateStatus: (next, previous) =>
      immutable(next, previous, ["ipAddress"]).map((error) => ({ ...error, path: "status.ipAddress" })),
    removal: async ({ status }) => {
      const value = parseIp(status.ipAddress ?? "")?.value;
      return value === undefined ? [] : [{ delete: keyOf(value) }];
    },
  };
}

interface Pool {
  range: IpRange;
  free: FreeAddresses;
}

async function admitAddress(
  pool: Pool,
  address: Address,
  world: World,
  action: string,
): Promise<Admission<Status>> {
  const { name, project = "", uid } = address.metadata;
  const bound = await bind(address, world, action);
  const wanted = parseIp(address.spec.ipAddress ?? "")?.value;
  const value =
    wanted === undefined ? await findFree(pool) : await checkWanted(pool, wanted, project, world, action);
  const waits = address.spec.instance === undefined ? {} : { state: "binding" as const };
  return {
    status: { ...address.status, ...waits, ipAddress: formatIp({ family: 4, value }) },
    writes: [...bound, { put: keyOf(value), value: { project, name, uid }, ifRevision: 0 }],
  };
}

/** @throws Invalid, Conflict */
async function bind(address: Address, world: World, action: string): Promise<Write[]> {
  const { name, project = "" } = address.metadata;
  const { instance } = address.spec;
  if (instance === undefined) return [];
  const path = "spec.instance";
  const references = new References(world, project);
  await references.findAlone(instanceKind, instance, path);
  references.check(action);
  for await (const other of world.scan(addressKind, project)) {
    if (other.spec.instance !== instance || other.metadata.name === name) continue;
    const message = `is "${instance}", which has address "${other.metadata.name}" already`;
    throw conflict(action, { path, message, allowed: "one address an instance; take that one away first" });
  }
  return references.writes();
}

async function findFree({ range, free }: Pool): Promise<bigint> {
  const found = await free.find({ family: 4, prefix, ...boundsOf(range) });
  if (found !== undefined) return found;
  throw new StrataError(
    "CapacityExceeded",
    `all addresses of the pool ${formatRange(range)} are taken; delete addresses that nobody needs, or have an ` +
      "administrator set a larger pool (STRATA_ADDRESS_POOL)",
  );
}

async function checkWanted(
  { range }: Pool,
  value: bigint,
  project: string,
  world: World,
  action: string,
): Promise<bigint> {
  const { first, last } = boundsOf(range);
  const text = formatIp({ family: 4, value });
  const path = "spec.ipAddress";
  if (!contains(range, { family: 4, value }) || value < first || value > last) {
    const allowed = [first, last].map((end) => formatIp({ family: 4, value: end })).join(" to ");
    throw invalid(action, [{ path, message: `is ${text}, which is not of the pool`, allowed }]);
  }
  const entry = await world.store.get(keyOf(value));
  if (!entry) return value;
  const owner = entry.value as { project: string; name: string };
  // Whose it is concerns its own project only.
  const who = owner.project === project ? `address "${owner.name}" has` : "another project has";
  throw conflict(action, {
    path,
    message: `is ${text}, which ${who}`,
    allowed: "leave it out and get a free one",
  });
}

/** A range of four or more may be a link's, where the ends mean something else. */
function boundsOf(range: IpRange): { first: bigint; last: bigint } {
  const margin = sizeOf(range) >= 4n ? 1n : 0n;
  return { first: range.base + margin, last: lastOf(range) - margin };
}

function parsePool(pool: string): IpRange {
  const parsed = parseRange(pool);
  if (parsed?.exact && parsed.range.family === 4) return parsed.range;
  throw new StrataError("Invalid", `the address pool ${pool} is no IPv4 range such as ${defaultAddressPool}`);
}

function keyOf(value: bigint): string {
  return `${prefix}${addressKey(4, value)}`;
}
