/** Both builders of Dockerfiles by the same suite, and what only buildah has: a network and stores of its own. */
import { spawn } from "node:child_process";
import { chmod, chown, cp, mkdir, mkdtemp, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { networkInterfaces } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";

import { systemClock } from "../src/core/clock.ts";
import { createEngineBuilder } from "../src/drivers/docker/engine-builder.ts";
import { createBuildahBuilder } from "../src/host/images/dockerfile/buildah/buildah-builder.ts";
import {
  type BuilderHarness,
  builderConformance,
} from "../src/host/images/dockerfile/builder-conformance.ts";
import { openCgroups } from "../src/host/kernel-cgroups.ts";
import { run } from "../src/host/run.ts";
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

async function buildahScene(
  network: string | undefined,
): Promise<BuilderHarness & { stores: string; group: string }> {
  const common = await scene("buildah");
  const { cgroups, group } = common;
  const stores = join(common.directory, "stores");
  const builder = createBuildahBuilder({
    ...{ directory: stores, idBase, network, cgroups, group, clock: systemClock },
  });
  return { ...common, stores, builder, dispose: () => rm(common.directory, { recursive: true }) };
}

builderConformance("buildah", () => buildahScene("none"));

describe("what only buildah has", () => {
  let harness: Awaited<ReturnType<typeof buildahScene>>;
  beforeAll(async () => {
    harness = await buildahScene(undefined);
  });
  afterAll(async () => {
    expect(await harness.leaks()).toEqual([]);
    await harness.dispose();
  });

  /** A root of busybox, and these lines after it. */
  const orderOf = async (name: string, lines: readonly string[]) => {
    const context = join(harness.directory, `${name}.tar`);
    await run("tar", ["--create", "--file", context, "--directory", harness.tree.path, "bin"]);
    const steps = ["FROM scratch", "COPY bin /bin/", "RUN /bin/busybox --install -s /bin; true", ...lines];
    return {
      ...{ context, dockerfile: steps.join("\n"), args: {}, cache: true },
      limits: { memoryMib: 256, cpus: 1 },
    };
  };

  it("a network that reaches others, and not what listens on the host's loopback alone", async () => {
    const address = Object.values(networkInterfaces())
      .flat()
      .find((one) => one?.family === "IPv4" && !one.internal)?.address;
    const serve = (host: string, text: string) =>
      new Promise<Server>((resolve) => {
        const server = createServer((_request, response) => response.end(`${text}\n`));
        server.listen(0, host, () => resolve(server));
      });
    const [outside, loopback] = [
      await serve(address ?? "127.0.0.1", "outside"),
      await serve("127.0.0.1", "loopback"),
    ];
    const portOf = (server: Server) => (server.address() as AddressInfo).port;
    const printed: string[] = [];
    try {
      await using session = await harness.builder.open("network", AbortSignal.timeout(60_000));
      await session.build({
        ...(await orderOf("network", [
          // nc: busybox's wget asks for shared libraries, which are not in there.
          `RUN ask() { printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w $3 $1 $2 | tail -n 1; }; ask ${address} ${portOf(outside)} 20; for host in 10.0.2.2 127.0.0.1; do ask $host ${portOf(loopback)} 3; done; echo tried`,
        ])),
        signal: AbortSignal.timeout(100_000),
        onLine: (line) => printed.push(line),
      });
    } finally {
      outside.close();
      loopback.close();
    }
    if (address !== undefined) expect(printed).toContain("outside");
    expect(printed).toContain("tried");
    expect(printed).not.toContain("loopback");
  });

  it("a builder that is killed in the middle: its processes end, its containers go, and the next build is as any other", async () => {
    const { group, stores } = harness;
    const order = await orderOf("killed", ["RUN echo begun; while :; do sleep 1; done"]);
    const builder = { directory: stores, idBase, network: "none", group };
    const child = spawn(
      process.execPath,
      [join(import.meta.dirname, "builder-child.ts"), JSON.stringify({ builder, scope: "killed", order })],
      { stdio: ["ignore", "pipe", "inherit"] },
    );
    let printed = "";
    child.stdout.setEncoding("utf8").on("data", (text: string) => {
      printed += text;
    });
    await expect.poll(() => /^begun$/m.test(printed), { timeout: 100_000 }).toBe(true);
    child.kill("SIGKILL");
    const cgroups = await openCgroups({ clock: systemClock });
    await expect.poll(() => cgroups.isPopulated(group), { timeout: 20_000 }).toBe(false);
    const containers = join(stores, "killed/store/overlay-containers/containers.json");
    expect(JSON.parse(await readFile(containers, "utf8"))).not.toHaveLength(0);
    await using session = await harness.builder.open("killed", AbortSignal.timeout(60_000));
    expect(JSON.parse(await readFile(containers, "utf8"))).toHaveLength(0);
    const after = await orderOf("after", ["RUN echo built"]);
    const signal = AbortSignal.timeout(100_000);
    await session.build({ ...after, signal, onLine: () => {} });
  });
});
