import { expect, test } from "vitest";
import { isMachineDaemon, readSettings, settingsEnvironment } from "./settings.ts";

test("without anything, they are those of the machine's daemon", () => {
  const settings = readSettings({});
  expect(settings).toMatchObject({
    stateDir: "/var/lib/strata",
    runDir: "/run/strata",
    imageDir: "/var/lib/strata/images",
    socketPath: "/run/strata/strata.sock",
    namespace: "strata",
    httpsPort: 7443,
    fake: false,
  });
  expect(isMachineDaemon(settings)).toBe(true);
});

test("one directory makes a daemon of its own: two of them share no name, path or range", () => {
  const [a, b] = [readSettings({ STRATA_DIR: "/srv/a" }), readSettings({ STRATA_DIR: "/srv/b" })];
  expect(a).toMatchObject({ stateDir: "/srv/a/state", imageDir: "/srv/a/images", httpsPort: 0 });
  for (const key of ["stateDir", "runDir", "imageDir", "socketPath", "namespace", "networkPool"] as const) {
    expect(a[key]).not.toBe(b[key]);
  }
  expect(isMachineDaemon(a)).toBe(false);
});

test("an option goes before its variable, and that before the directory", () => {
  const env = { STRATA_DIR: "/srv/a", STRATA_NAMESPACE: "from-env", STRATA_STATE_DIR: "/srv/state" };
  const settings = readSettings(env, (name) => (name === "namespace" ? "from-option" : undefined));
  expect(settings).toMatchObject({ namespace: "from-option", stateDir: "/srv/state", runDir: "/srv/a/run" });
});

test("the daemon's process reads the same settings that its starter had", () => {
  const mirrors = "https://cloud.debian.org/=http://10.0.0.1/debian/,https://x.example=https://y.example";
  const env = {
    STRATA_DIR: "/srv/a",
    STRATA_IMAGE_DIR: "/srv/images",
    STRATA_IMAGE_MIRRORS: mirrors,
    STRATA_BUILD_NETWORK: "host",
    STRATA_IMAGE_NETWORKS: "10.3.0.0/16",
    STRATA_S3_NETWORKS: "192.168.7.0/24,fd00::5",
    STRATA_S3_AUTHORITIES: "/etc/ssl/inside.pem",
    STRATA_FAKE: "1",
  };
  const settings = readSettings(env);
  expect(settings.imageMirrors["https://cloud.debian.org/"]).toBe("http://10.0.0.1/debian/");
  expect(readSettings(settingsEnvironment(settings))).toEqual(settings);
});

test.each([
  ["namespace", "A b"],
  ["network-pool", "10.0.0.0/33"],
  ["id-base", "12"],
  ["https-port", "70000"],
  ["log-level", "loud"],
  ["image-mirrors", "https://cloud.debian.org/"],
  ["image-mirrors", "https://cloud.debian.org/=http://["],
  ["build-network", "no such/network"],
  ["image-networks", "nas.local"],
  ["s3-networks", "nas.local"],
  ["s3-networks", "192.168.7.1/24"],
  ["s3-authorities", "inside.pem"],
  ["socket", `/${"x".repeat(120)}`],
])("a wrong %s is refused with what is allowed", (name, value) => {
  expect(() => readSettings({}, (option) => (option === name ? value : undefined))).toThrow(
    expect.objectContaining({ code: "Invalid", fields: [expect.objectContaining({ path: name })] }),
  );
});
