import { execFileSync } from "node:child_process";
import { describe, expect, it } from "vitest";
import { explainFailure } from "./debian-build.ts";
import { customizeHook, debianPackages, essentialHook } from "./debian-recipe.ts";

describe("the recipe", () => {
  it("lists each package once, sorted, so that the order of a request does not matter", () => {
    const packages = debianPackages(["nginx", "sudo", "curl"], "x64");
    expect(packages).toEqual([...new Set(packages)].sort());
    expect(packages).toContain("linux-image-cloud-amd64");
    expect(packages).toContain("nginx");
    expect(debianPackages(["curl", "nginx"], "x64")).toEqual(
      debianPackages(["nginx", "curl", "nginx"], "x64"),
    );
    expect(debianPackages([], "arm64")).toContain("linux-image-cloud-arm64");
    expect(() => debianPackages([], "riscv64")).toThrow(/riscv64/);
  });

  it.each([
    ["essential", essentialHook],
    ["customize", customizeHook],
  ])("has a %s hook that a shell can read", (_name, hook) => {
    execFileSync("sh", ["-n"], { input: hook });
    expect(hook).toMatch(/^set -eu\n/);
  });
});

describe("explainFailure", () => {
  const source = { type: "debian", suite: "bookworm", packages: ["a", "b"] } as const;
  it.each([
    ["E: Unable to locate package nosuch", "Invalid", 'Debian bookworm has no package "nosuch"'],
    ["E: Package 'mini-httpd' has no installation candidate", "Invalid", 'has no package "mini-httpd"'],
    [
      "The following packages have unmet dependencies:",
      "Invalid",
      "packages a, b cannot be installed together",
    ],
    [
      "E: Failed to fetch http://deb.debian.org/x  Could not resolve 'deb.debian.org'",
      "Unavailable",
      "mirror",
    ],
    ["Err:1 http://x bookworm InRelease\n  Temporary failure resolving 'x'", "Unavailable", "mirror"],
    ["dpkg: error processing package x", "Internal", "daemon's log"],
  ])("reads %j", (line, code, message) => {
    const error = explainFailure({ ...source, packages: [...source.packages] }, ["I: running", line]);
    expect(error).toMatchObject({
      code,
      message: expect.stringContaining(message),
      detail: expect.stringContaining(line),
    });
  });
});
