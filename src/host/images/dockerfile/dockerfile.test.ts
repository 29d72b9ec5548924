import { execFileSync } from "node:child_process";
import { describe, expect, it, test } from "vitest";
import { applicationOf, serviceUnit } from "./application.ts";
import { progressOf } from "./build-image.ts";
import { completionDockerfile, completionFiles } from "./completion.ts";
import { basesOf, replaceBases } from "./dockerfile-text.ts";
import { tidyTree, withoutDays } from "./tidy-tree.ts";

describe("Strata's images in a Dockerfile", () => {
  const dockerfile = [
    "ARG BASE=strata/debian12",
    "FROM --platform=$BUILDPLATFORM strata/tools AS tools",
    "from $BASE",
    "COPY --chown=1:1 --from=strata/shop /a /b",
    "COPY --from=tools /strata/x /y",
    "RUN echo FROM strata/no",
    "FROM debian:strata/no",
    "FROM other/strata/no",
  ].join("\n");

  it("are found where an image is named, and nowhere else", () => {
    const args = { X: "strata/from-arguments", Y: "strata/no/name" };
    expect(basesOf({ dockerfile, args })).toEqual(["debian12", "from-arguments", "shop", "tools"]);
  });

  it("get other names, and nothing else changes", () => {
    const text = replaceBases({ dockerfile, args: { X: "strata/a", Y: "b" } }, (name) => `local:${name}`);
    expect(text.args).toEqual({ X: "local:a", Y: "b" });
    expect(text.dockerfile.split("\n").slice(0, 4)).toEqual([
      "ARG BASE=local:debian12",
      "FROM --platform=$BUILDPLATFORM local:tools AS tools",
      "from $BASE",
      "COPY --chown=1:1 --from=local:shop /a /b",
    ]);
    expect(text.dockerfile.split("\n").slice(4)).toEqual(dockerfile.split("\n").slice(4));
  });
});

describe("an application", () => {
  it("is what ENTRYPOINT and CMD say together, and none without both", () => {
    expect(applicationOf({ Env: ["A=b"] })).toBeUndefined();
    expect(
      applicationOf({
        ...{ Entrypoint: ["/server"], Cmd: ["--port", "80"], Env: ["A=b"], User: "web", WorkingDir: "" },
        ExposedPorts: { "81/udp": {}, "80/tcp": {} },
      }),
    ).toEqual({
      ...{ command: ["/server", "--port", "80"], environment: ["A=b"], workingDirectory: "/", user: "web" },
      ...{ ports: ["80/tcp", "81/udp"], stopSignal: "SIGTERM" },
    });
  });

  it("keeps its data where VOLUME says, and never all of the root", () => {
    const Volumes = { "/srv/data/": {}, "/": {}, "var/lib/x": {} };
    expect(applicationOf({ Cmd: ["/x"], Volumes })?.volumes).toEqual(["/srv/data", "/var/lib/x"]);
  });

  it("becomes a unit in which systemd expands nothing", () => {
    const unit = serviceUnit({
      command: ["python3", "-c", 'print("$HOME %h \\ 1")\n'],
      environment: ["PATH=/opt/bin:/bin", 'TITLE=100% of "$5"'],
      workingDirectory: "/srv/50%",
      user: "1000:web",
      ports: [],
      stopSignal: "SIGINT",
    });
    const lines = unit.split("\n");
    expect(lines).toContain('ExecStart="python3" "-c" "print(\\"$$HOME %%h \\\\ 1\\")\\x0a"');
    expect(lines).toContain('Environment="TITLE=100%% of \\"$5\\""');
    expect(lines).toContain("ExecSearchPath=/opt/bin:/bin");
    expect(lines).toContain("WorkingDirectory=/srv/50%%");
    expect(lines).toContain("User=1000");
    expect(lines).toContain("Group=web");
    expect(lines).toContain("KillSignal=SIGINT");
  });

  it("that is named by a path in its directory is found there", () => {
    const unit = serviceUnit({
      ...{ command: ["./server"], environment: [], workingDirectory: "/srv", user: "", ports: [] },
      stopSignal: "SIGTERM",
    });
    expect(unit).toContain('ExecStart="/srv/server"\n');
    expect(unit).toContain("User=root\n");
    expect(unit).toMatch(/Environment="PATH=\/usr\/local\/sbin:/);
  });
});

test("the last step is made of files that a shell can read", () => {
  const files = completionFiles({
    application: applicationOf({ Cmd: ["/x"] }),
    mirrors: { main: "http://a/debian", security: "http://a/debian-security" },
    proxies: ['Acquire::http::Proxy "http://p:1"'],
  });
  for (const name of ["complete", "essential", "configure"])
    execFileSync("sh", ["-n"], { input: files.get(name) });
  expect(files.get("apt.conf")).toBe('Acquire::http::Proxy "http://p:1";\n');
  expect(files.get("sources")).toContain("deb http://a/debian-security @SUITE@-security main\n");
  expect(completionDockerfile("x:1")).toMatch(/^FROM x:1\nUSER 0:0\n/);
});

describe("what stays of a built tree", () => {
  const { of, missing } = tidyTree(
    new Set(["usr/bin/cloud-init", "etc/systemd/network/80-strata.network", "etc/hosts"]),
  );
  test.each([
    [".strata-build/complete", "drop"],
    [".strata-builder", "keep"],
    ["etc/passwd", "keep"],
    ["etc/passwd-", "drop"],
    ["etc/hostname", "drop"],
    ["etc/ssh/ssh_host_ed25519_key", "drop"],
    ["etc/ssh/sshd_config", "keep"],
    ["var/lib/apt/lists/deb.debian.org_InRelease", "drop"],
    ["var/cache/apt/pkgcache.bin", "drop"],
    ["var/log/dpkg.log", "drop"],
    ["var/log/shop/access.log", "keep"],
    ["var/lib/dpkg/status", "keep"],
    ["var/lib/dpkg/status-old", "drop"],
    ["run/shop/pid", "drop"],
  ])("%s: %s", (path, what) => expect(of(path, false)).toBe(what));

  it("keeps directories whose files go", () => {
    for (const path of ["run/shop", "var/lib/apt/lists/partial", "var/log/apt"])
      expect(of(path, true)).toBe("keep");
  });

  it("adds what a guest with systemd-networkd lacks", () => {
    expect(missing.map(([path]) => path)).toEqual(["etc/machine-id", "etc/resolv.conf"]);
    expect(of("etc/resolv.conf", false)).toEqual({ link: "../run/systemd/resolve/stub-resolv.conf" });
    expect(tidyTree(new Set()).of("etc/resolv.conf", false)).toBe("keep");
  });

  it("keeps the keys of a system whose guests would not make their own", () => {
    expect(tidyTree(new Set()).of("etc/ssh/ssh_host_ed25519_key", false)).toBe("keep");
  });

  it("forgets on which day accounts without a password were made", () => {
    expect(withoutDays("root:*:20001:0:::::\nme:$y$x:20001:0:::::\nweb:!:20002::::::\n")).toBe(
      "root:*:19675:0:::::\nme:$y$x:20001:0:::::\nweb:!:19675::::::\n",
    );
  });
});

test("what a builder prints becomes progress", () => {
  const told: unknown[] = [];
  const tell = progressOf((progress) => told.push(progress), 0, 0.5);
  for (const line of ["Step 2/4 : RUN make", " cc \t x", "", "STEP 3/4: COPY a b"]) tell(line);
  expect(told).toEqual([
    { step: "2/4 RUN make", fraction: 0.125 },
    { step: "2/4 RUN make: cc   x", fraction: 0.125 },
    { step: "3/4 COPY a b", fraction: 0.25 },
  ]);
});
