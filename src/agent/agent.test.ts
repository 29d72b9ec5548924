import { expect, test } from "vitest";
import { agentBench } from "../../sim/agent-bench.ts";
import { imageKind } from "../kinds/image.ts";

test("an instance comes to run: image, network, disk, guest, in that order", async () => {
  const bench = await agentBench();
  await bench.createImage();
  await bench.createInstance("web");
  const web = await bench.until("web", (instance) => instance.status.state === "running");
  expect(web.status).toMatchObject({ reason: "Running", message: "", driver: "fake", observedGeneration: 1 });
  expect(web.status.handle).toBeDefined();
  expect(bench.host.world.guests.get(web.metadata.uid)?.state).toBe("running");
  const image = await bench.services.resources.require(bench.me, imageKind, {
    project: "default",
    name: "debian",
  });
  expect(web.status.imageDigest).toBe(image.status.digest);
  await bench.stop();
});
