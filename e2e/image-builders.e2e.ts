/** Both builders of Dockerfiles by the same suite, and what only buildah has: a network and stores of its own. */
import { chmod, chown, cp, mkdir, mkdtemp, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";

import { systemClock } from "../src/core/clock.ts";
import { createEngineBuilder } from "../src/drivers/docker/engine-builder.ts";
import { createBuildahBuilder } from "../src/host/images/dockerfile/buildah/buildah-builder.ts";
import {
  type BuilderHarness,
  builderConformance,
} from "../src/host/images/dockerfile/builder-conformance.ts";
import { openCgroups } from "../src/host/kernel-cgroups.ts";
import { TestEngine } from "./docker-engine.ts";
import { findLeaks, takeSnapshot } from "./leaks.ts";

const busyboxPath = "/bin/busybox";
const idBase = 1_000_000;

async function scene(name: string) {
  const directory = await mkdtemp(`/var/tmp/strata-${name}-`);
  const path = join(directory, "tree");
  await mkdir(join(path, "bin"), { recursive: true });
  await mkdir(join(path, "srv"));
  await cp(busyboxPath, join(path, "bin/busybox"));
  for (const applet of ["sh", "stat"]) await symlink("busybox", join(path, "bin", applet));
  await writeFile(join(path, "srv/gone"), "x");
  for (const entry of ["", "bin", "bin/busybox", "srv"]) await chown(join(path, entry), idBase, idBase);
  await chown(join(path, "srv/gone"), idBase + 1000, idBase + 1001);
  const hostFile = { path: join(directory, "secret"), text: `secret of ${name}` };
  await writeFile(hostFile.path, hostFile.text, { mode: 0o600 });
  await chmod(directory, 0o711);
  const group = `strata-test-${name}`;
  const before = await takeSnapshot();
  const cgroups = await openCgroups({ clock: systemClock });
  return {
    ...{ directory, hostFile, group, cgroups, tree: { path, idBase }, busybox: await readFile(busyboxPath) },
    // Others may be at work on this machine.
    leaks: async () =>
      (await findLeaks(before, [directory, group])).filter((line) =>
        /strata-|^mount|^netns|^link/.test(line),
      ),
  };
}

builderConformance("the Docker Engine", async (): Promise<BuilderHarness> => {
  const engine = await TestEngine.start("/var/tmp/strata-e2e-builders");
  const common = await scene("engine-builder");
  const { cgroups, group } = common;
  const builder = createEngineBuilder({
    ...{ namespace: group, socketPath: engine.socketPath, network: "none" },
    ...{ cgroups, group, clock: systemClock },
  });
  return {
    ...common,
    builder,
    async leaks() {
      const { body } = await engine.get("/containers/json?all=1");
      return [...(await common.leaks()), ...(body as { Id: string }[]).map(({ Id }) => `container ${Id}`)];
    },
    async dispose() {
      await engine.stop();
      await rm(common.directory, { recursive: true });
    },
  };
});

async function buildahScene(network: string | undefined): Promise<BuilderHarness & { stores: string }> {
  const common = await scene("buildah");
  const { cgroups, group } = common;
  const stores = join(common.directory, "stores");
  const builder = createBuildahBuilder({
    ...{ directory: stores, idBase, network, cgroups, group, clock: systemClock },
  });
  return { ...common, stores, builder, dispose: () => rm(common.directory, { recursive: true }) };
}

builderConformance("buildah", () => buildahScene("none"));
