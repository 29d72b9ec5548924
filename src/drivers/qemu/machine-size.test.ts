import { expect, it } from "vitest";
import { parseCpus, parseHotMemory } from "./machine-size.ts";

const cpu = (core: number, path?: string) => ({
  type: "max-x86_64-cpu",
  "vcpus-count": 1,
  props: { "core-id": core, "thread-id": 0, "node-id": 0, "socket-id": 0 },
  ...(path === undefined ? {} : { "qom-path": path }),
});

it("tells processors that are there from those that may come, the next one first", () => {
  expect(parseCpus([cpu(2), cpu(1), cpu(0, "/machine/unattached/device[0]")])).toEqual({
    cpus: 1,
    freeCpus: [
      { driver: "max-x86_64-cpu", id: "cpu1", "core-id": 1, "thread-id": 0, "socket-id": 0 },
      { driver: "max-x86_64-cpu", id: "cpu2", "core-id": 2, "thread-id": 0, "socket-id": 0 },
    ],
  });
});

it("reads the memory beyond what the machine began with", () => {
  const data = { id: "memory", size: 134217728, "requested-size": 268435456, "max-size": 1073741824 };
  expect(parseHotMemory([{ type: "virtio-mem", data }])).toEqual({
    sizeMib: 128,
    requestedMib: 256,
    maxMib: 1024,
  });
  expect(parseHotMemory([])).toBeUndefined();
  expect(parseHotMemory({ unexpected: true })).toBeUndefined();
});
