/** Waits until a stack's images and instances are ready, telling how they come along. */
import type { Client } from "../../client/client.ts";
import { StrataError } from "../../core/errors.ts";
import { type Image, imageKind } from "../../kinds/image.ts";
import { type Instance, instanceKind, wantsRebuild } from "../../kinds/instance.ts";
import type { Progress } from "../../kinds/kind.ts";
import { follow, type Patience } from "../watching.ts";
import type { Reporter } from "./apply-stack.ts";
import { keyOf } from "./plan-stack.ts";

/** Resolves to the instances by name. @throws Unavailable when one of them, or an image, failed. */
export async function awaitReady(
  client: Client,
  project: string,
  names: { images: readonly string[]; instances: readonly string[] },
  limits: Patience,
  reporter: Reporter,
): Promise<Instance[]> {
  const stop = new AbortController();
  const bounded = { ...limits, signal: AbortSignal.any([limits.signal, stop.signal]) };
  try {
    const [, instances] = await Promise.all([
      awaitImages(client, project, names.images, bounded, reporter),
      awaitInstances(client, project, names.instances, bounded, reporter),
    ]);
    return instances;
  } finally {
    stop.abort();
  }
}

export async function awaitImages(
  client: Client,
  project: string,
  names: readonly string[],
  limits: Patience,
  reporter: Reporter,
): Promise<Image[]> {
  if (names.length === 0) return [];
  const done = new Map<string, Image>();
  await follow(
    client,
    imageKind,
    { project },
    limits,
    (seen) => {
      for (const name of names) {
        const image = seen.get(`${project}/${name}`);
        if (!image) continue;
        const { state, message, progress } = image.status;
        const current = image.status.observedGeneration >= image.metadata.generation;
        if (state === "failed" && current)
          throw new StrataError("Unavailable", `the image "${name}" cannot be made: ${message}`);
        const failure = image.status.conditions.find(
          ({ type, status }) => type === "Made" && status === "false",
        );
        if (failure && current && state !== "ready")
          throw new StrataError(
            "Unavailable",
            `the image "${name}" cannot be made: ${failure.message}; the daemon goes on trying`,
          );
        if (done.has(name)) continue;
        const settled = state === "ready";
        const text = settled ? "ready" : (progress?.step ?? state);
        report(reporter, keyOf(imageKind, name), text, { progress, settled });
        if (state === "ready") done.set(name, image);
      }
      return done.size === names.length;
    },
    () => `the image ${missing(names, done).join(", ")}`,
  );
  return [...done.values()];
}

/** Running, and every service accepts connections; or stopped where that is wanted. */
export function isReady(instance: Instance): boolean {
  if (instance.metadata.generation > instance.status.observedGeneration) return false;
  if (wantsRebuild(instance)) return false;
  if (instance.spec.power === "stopped") return instance.status.state === "stopped";
  if (instance.status.state !== "running") return false;
  const ready = instance.status.conditions.find((condition) => condition.type === "Ready");
  return ready === undefined ? instance.spec.services.length === 0 : ready.status === "true";
}

export async function awaitInstances(
  client: Client,
  project: string,
  names: readonly string[],
  limits: Patience,
  reporter: Reporter,
): Promise<Instance[]> {
  if (names.length === 0) return [];
  const done = new Map<string, Instance>();
  await follow(
    client,
    instanceKind,
    { project },
    limits,
    (seen) => {
      for (const name of names) {
        const instance = seen.get(`${project}/${name}`);
        if (!instance || instance.metadata.deletedAt) {
          done.delete(name);
          continue;
        }
        const current = instance.status.observedGeneration >= instance.metadata.generation;
        if (instance.status.state === "failed" && current) {
          throw new StrataError(
            "Unavailable",
            `the instance "${name}" cannot start: ${instance.status.message}`,
          );
        }
        const settled = isReady(instance);
        if (settled) done.set(name, instance);
        else done.delete(name);
        const { progress } = instance.status;
        report(reporter, keyOf(instanceKind, name), stateText(instance), { progress, settled });
      }
      return done.size === names.length;
    },
    () => `waiting for ${missing(names, done).join(", ")}`,
  );
  return names.flatMap((name) => done.get(name) ?? []);
}

function stateText(instance: Instance): string {
  if (isReady(instance)) return instance.spec.power === "stopped" ? "stopped" : "ready";
  const { state, message, progress } = instance.status;
  const why = progress?.step ?? (state === "running" ? notReadyYet(instance) : message);
  return why ? `${state}: ${why}` : state;
}

function notReadyYet(instance: Instance): string {
  const ready = instance.status.conditions.find((condition) => condition.type === "Ready");
  return ready?.message || "boots";
}

function report(
  reporter: Reporter,
  key: string,
  text: string,
  { progress, settled }: { progress: Progress | undefined; settled: boolean },
): void {
  const { fraction } = progress ?? {};
  const percent = fraction === undefined ? {} : { percent: `${Math.floor(fraction * 100)} %` };
  reporter.progress(key, text, { ...percent, settled });
}

function missing(names: readonly string[], done: ReadonlyMap<string, unknown>): string[] {
  return names.filter((name) => !done.has(name));
}
