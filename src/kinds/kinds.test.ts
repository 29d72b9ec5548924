import { describe, expect, it } from "vitest";
import { imageKind } from "./image.ts";
import { instanceKind, instanceLimits } from "./instance.ts";
import { keyPairKind } from "./key-pair.ts";
import { refOfKey, resourceKey, resourcePrefix } from "./keys.ts";
import { withCondition } from "./kind.ts";
import { findKind, kinds } from "./registry.ts";

describe("every kind", () => {
  it.each(kinds.map((kind) => [kind.name, kind] as const))("%s has a valid initial status", (_, kind) => {
    expect(kind.status.parse(kind.initialStatus())).toEqual(kind.initialStatus());
    expect(findKind(kind.plural)).toBe(kind);
    expect(findKind(kind.name)).toBe(kind);
  });

  it("has names of its own", () => {
    expect(new Set(kinds.map((kind) => kind.plural)).size).toBe(kinds.length);
  });
});

describe("keys", () => {
  it("are read back as they were made", () => {
    for (const ref of [{ project: "p", name: "n" }]) {
      expect(refOfKey(instanceKind, resourceKey(instanceKind, ref))).toEqual(ref);
    }
    const host = findKind("Host");
    expect(host && refOfKey(host, resourceKey(host, { name: "h" }))).toEqual({ name: "h" });
    expect(resourcePrefix(instanceKind, "p")).toBe("/instances/p/");
    expect(resourcePrefix(instanceKind)).toBe("/instances/");
  });
});

describe("Instance", () => {
  const minimal = { type: "container", image: "debian" };

  it("is completed with defaults", () => {
    expect(instanceKind.spec.parse(minimal)).toMatchObject({
      cpus: 1,
      memoryMib: 512,
      network: "default",
      restartPolicy: "always",
      power: "running",
      protected: false,
    });
  });

  it.each([
    [{ ...minimal, typo: 1 }, "typo"],
    [{ ...minimal, type: "jail" }, "type"],
    [{ ...minimal, memoryMib: "512MiB" }, "memoryMib"],
    [{ ...minimal, cpus: 0 }, "cpus"],
    [{ ...minimal, image: "a;b" }, "image"],
    [{ ...minimal, userData: "x".repeat(instanceLimits.userDataBytes + 1) }, "userData"],
    [{ ...minimal, services: [{ name: "http", port: 70000 }] }, "port"],
  ])("refuses %j", (spec, where) => {
    const result = instanceKind.spec.safeParse(spec);
    expect(result.success).toBe(false);
    expect(JSON.stringify(result.error?.issues)).toContain(where);
  });

  it("names the fields that can't change", () => {
    const previous = instanceKind.spec.parse(minimal);
    const next = { ...previous, diskMib: 16_384, cpus: 2, power: "stopped" as const };
    const errors = instanceKind.validateUpdate(next, previous, instanceKind.initialStatus());
    expect(errors.map((error) => error.path)).toEqual(["spec.diskMib"]);
    const fewer = instanceKind.validateUpdate(
      previous,
      { ...previous, restarts: 1 },
      instanceKind.initialStatus(),
    );
    expect(fewer.map((error) => error.path)).toEqual(["spec.restarts"]);
    const paths = (change: object, before = previous) =>
      instanceKind
        .validateUpdate({ ...previous, ...change }, before, instanceKind.initialStatus())
        .map(({ path }) => path);
    expect(paths({ image: "other" })).toEqual(["spec.image"]);
    expect(paths({ image: "other", rebuilds: 1 })).toEqual([]);
    expect(paths({}, { ...previous, rebuilds: 1 })).toEqual(["spec.rebuilds"]);
  });
});

describe("Image and KeyPair", () => {
  it("refuse what is no source or no key", () => {
    const bad = [
      { source: { type: "debian", suite: "woody" } },
      { source: { type: "debian", suite: "bookworm", packages: ["--help"] } },
      { source: { type: "url", url: "file:///etc/shadow", format: "tar", sha256: "0".repeat(64) } },
      { source: { type: "url", url: "https://example.org/x", format: "tar" } },
    ];
    for (const spec of bad) expect(imageKind.spec.safeParse(spec).success).toBe(false);
    expect(keyPairKind.spec.safeParse({ publicKey: "ssh-ed25519 AAAA me\nssh-rsa BBBB" }).success).toBe(
      false,
    );
    expect(keyPairKind.spec.safeParse({ publicKey: "ssh-ed25519 AAAAC3Nz me@host" }).success).toBe(true);
  });
});

describe("withCondition", () => {
  it("moves `since` only when the status changes", () => {
    const ready = { type: "Ready", status: "false", reason: "Probing", message: "" } as const;
    const first = withCondition([], ready, "2026-01-01T00:00:00Z");
    const second = withCondition(first, { ...ready, message: "x" }, "2026-01-02T00:00:00Z");
    expect(second[0]).toMatchObject({ message: "x", since: "2026-01-01T00:00:00Z" });
    const third = withCondition(second, { ...ready, status: "true" }, "2026-01-03T00:00:00Z");
    expect(third[0]?.since).toBe("2026-01-03T00:00:00Z");
  });
});
