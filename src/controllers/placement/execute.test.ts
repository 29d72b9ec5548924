import { expect, test } from "vitest";
import { silentLogger } from "../../core/logger.ts";
import { seededRandom } from "../../core/random.ts";
import { instanceKind } from "../../kinds/instance.ts";
import { promisesKey } from "../../kinds/keys.ts";
import { systemPrincipal as me } from "../../services/principal.ts";
import { createHost, createImage, testServices } from "../../services/testing.ts";
import type { ControllerContext } from "../context.ts";
import { StoreCache } from "../store-cache.ts";
import { executePlacement } from "./execute.ts";

test("a placement that does not know of a growth on the host is not carried out", async () => {
  const { services, store, clock } = await testServices();
  await createHost(services, "alpha", 4_096);
  await createImage(services);
  const instances = new StoreCache({
    store,
    clock,
    random: seededRandom(1),
    logger: silentLogger,
    kind: instanceKind,
  });
  const context = { store, caches: { instances } } as unknown as ControllerContext;
  const spec = { type: "container", image: "debian", memoryMib: 1_024 };
  const create = async (name: string) => {
    const made = await services.resources.create(me, instanceKind, { project: "default", name, spec });
    instances.put(instances.keyOf(made), made);
    return made;
  };
  const place = (instance: Awaited<ReturnType<typeof create>>) =>
    executePlacement(context, { type: "place-instance", instance, host: "alpha" });
  const [web, next] = [await create("web"), await create("next")];
  await place(web);
  const ref = { project: "default", name: "web" };
  const grown = await services.resources.patch(me, instanceKind, ref, { spec: { memoryMib: 4_096 } });
  expect(await store.get(promisesKey("alpha"))).toMatchObject({ revision: grown.metadata.revision });
  await expect(place(next)).rejects.toMatchObject({
    code: "Conflict",
    message: expect.stringContaining('others on host "alpha" grew meanwhile'),
  });
  instances.put(instances.keyOf(grown), grown);
  await place(next);
});
