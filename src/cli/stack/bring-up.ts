/** Carries out a stack's plan and waits until all of it is there: images, instances, groups with their members, networking. */
import type { Client } from "../../client/client.ts";
import { groupKind } from "../../kinds/group.ts";
import { imageKind } from "../../kinds/image.ts";
import { type Instance, instanceKind } from "../../kinds/instance.ts";
import type { Kind } from "../../kinds/kind.ts";
import type { Session } from "../command.ts";
import { patience, retrying } from "../watching.ts";
import { applyPlan } from "./apply-stack.ts";
import { awaitGroups } from "./await-groups.ts";
import { awaitNetworking } from "./await-networking.ts";
import { awaitReady } from "./await-stack.ts";
import type { LoadedStack } from "./load-stack.ts";
import type { Plan } from "./plan-stack.ts";

/** Resolves to the stack's instances, members of its groups behind them. Without `session.wait`: as they are at once. */
export async function bringUp(
  client: Client,
  stack: LoadedStack,
  plan: Plan,
  session: Session,
): Promise<Instance[]> {
  const { printer } = session;
  const { project } = stack;
  const limits = patience(session);
  await applyPlan(client, plan, limits, printer);
  if (session.wait) {
    const wanted = { images: namesOf(stack, imageKind), instances: namesOf(stack, instanceKind) };
    await awaitReady(client, project, wanted, limits, printer);
    const running = await retrying(() => runningInstances(client, project, session), limits);
    await awaitGroups(client, project, namesOf(stack, groupKind), limits, printer);
    await awaitNetworking(client, project, stack.desired, running, limits, printer);
  }
  return await retrying(() => instancesOf(client, stack, session), limits);
}

async function instancesOf(client: Client, stack: LoadedStack, { signal }: Session): Promise<Instance[]> {
  const { items } = await client.list(instanceKind, { project: stack.project }, { signal });
  const names = namesOf(stack, instanceKind);
  const groups = namesOf(stack, groupKind);
  const own = names.flatMap((name) => items.find(({ metadata }) => metadata.name === name) ?? []);
  const members = items.filter(
    ({ metadata: { owner } }) => owner?.kind === groupKind.name && groups.includes(owner.name),
  );
  return [...own, ...members];
}

/** Also those of the project that are not of the stack: its addresses and ports may lead to them. */
async function runningInstances(
  client: Client,
  project: string,
  { signal }: Session,
): Promise<ReadonlySet<string>> {
  const { items } = await client.list(instanceKind, { project, state: "running" }, { signal });
  return new Set(items.map((instance) => instance.metadata.name));
}

function namesOf(stack: LoadedStack, kind: Pick<Kind, "name">): string[] {
  return stack.desired.filter((one) => one.kind.name === kind.name).map((one) => one.name);
}
