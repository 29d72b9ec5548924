/** What every builder of Dockerfiles must do, told as tests: see image-builder.ts. */
import { mkdir, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { plainFileHeader, tarEnd, tarPadding, writeTarHeader } from "../../../core/tar-writer.ts";
import { readImageArchive } from "../layers/image-archive.ts";
import { mergedArchive } from "../layers/merged-archive.ts";
import { defaultLimits } from "../root-archive.ts";
import { readTar } from "../tar-reader.ts";
import { maxBuildProcesses } from "./build-limits.ts";
import type { BuildOrder, BuildSession, BuiltImage, ImageBuilder } from "./image-builder.ts";

export interface BuilderHarness {
  builder: ImageBuilder;
  /** A busybox that needs no library. */
  busybox: Uint8Array;
  /** Where the suite may work. */
  directory: string;
  /** A root tree with what `rootArchive` has, and owners shifted by `idBase`. */
  tree: { path: string; idBase: number };
  /** A file of the host that only root may read, and what is in it. */
  hostFile: { path: string; text: string };
  /** What builds left outside the builder's stores: processes, mounts, containers. */
  leaks(): Promise<string[]>;
  dispose(): Promise<void>;
}

const base = ["FROM scratch", "ADD root.tar /", 'RUN ["/bin/busybox", "--install", "-s", "/bin"]'];
const uuid = "/proc/sys/kernel/random/uuid";
const limits = { memoryMib: 256, cpus: 1 };

/** Runs the suite against a builder. `make` is called once; the harness is disposed of at the end. */
export function builderConformance(name: string, make: () => Promise<BuilderHarness>): void {
  describe(`builder ${name}`, () => {
    let harness: BuilderHarness;
    let bench: Bench;
    beforeAll(async () => {
      harness = await make();
      bench = new Bench(harness);
    });
    afterAll(() => harness?.dispose());
    const get = () => bench;
    describeResults(get);
    describeCache(get);
    describeFailures(get);
    describeWalls(get);
  });
}

class Bench {
  readonly harness: BuilderHarness;
  #count = 0;

  constructor(harness: BuilderHarness) {
    this.harness = harness;
  }

  /** One session, from a Dockerfile to the files of its result. */
  async build(scope: string, lines: readonly string[], options: Partial<BuildOrder> = {}): Promise<Result> {
    await using session = await this.open(scope);
    const order = await this.order(lines, options);
    const printed: string[] = [];
    const onLine = (line: string) => {
      printed.push(line);
      order.onLine(line);
    };
    const built = await session.build({ ...order, onLine });
    return { built, printed, files: await this.filesOf(session, built) };
  }

  open(scope: string): Promise<BuildSession> {
    return this.harness.builder.open(scope, AbortSignal.timeout(60_000));
  }

  async order(lines: readonly string[], options: Partial<BuildOrder> = {}): Promise<BuildOrder> {
    const context = join(this.harness.directory, `context-${++this.#count}.tar`);
    const root = rootArchive(this.harness.busybox);
    const files = { "root.tar": root, "greeting file": Buffer.from("hello\n") };
    await writeFile(context, archiveOf(files));
    const signal = AbortSignal.timeout(120_000);
    const dockerfile = `${lines.join("\n")}\n`;
    return { context, dockerfile, args: {}, cache: true, limits, signal, onLine: () => {}, ...options };
  }

  /** Content, or target, of everything in the image, by path; of directories, "". */
  async filesOf(session: BuildSession, { id }: BuiltImage): Promise<Map<string, string>> {
    const directory = join(this.harness.directory, `saved-${++this.#count}`);
    await mkdir(directory);
    const signal = AbortSignal.timeout(120_000);
    const files = new Map<string, string>();
    await session.save(
      id,
      async (archive) => {
        const { layers } = await readImageArchive(archive, directory, 1024 ** 3, signal);
        for await (const entry of readTar(mergedArchive(layers, { ...defaultLimits }, signal))) {
          const chunks: Buffer[] = [];
          for await (const chunk of entry.content) chunks.push(Buffer.from(chunk));
          files.set(entry.path, entry.target || Buffer.concat(chunks).toString());
        }
      },
      signal,
    );
    await rm(directory, { recursive: true });
    return files;
  }
}

interface Result {
  built: BuiltImage;
  printed: string[];
  files: Map<string, string>;
}

function describeResults(get: () => Bench): void {
  describe("what it gives", () => {
    it("has the files and the configuration that the Dockerfile says, and tells its steps", async () => {
      const { built, printed, files } = await get().build(
        "results",
        [
          ...base,
          "ARG WORD=none",
          'COPY ["greeting file", "/srv/greeting"]',
          "RUN echo said $WORD; echo $WORD > /srv/word; rm /srv/gone; id -u > /srv/uid",
          "RUN echo keeper:x:1234:1234::/:/bin/sh >> /etc/passwd; chown keeper /srv/word && ln -s word /srv/link",
          "ENV A=b",
          "EXPOSE 8080",
          "USER keeper",
          "WORKDIR /srv",
          'ENTRYPOINT ["/bin/serve"]',
          'CMD ["--all"]',
          "STOPSIGNAL SIGINT",
        ],
        { args: { WORD: "given" } },
      );
      expect(built.config).toMatchObject({
        ...{ Entrypoint: ["/bin/serve"], Cmd: ["--all"], User: "keeper", WorkingDir: "/srv" },
        ...{ StopSignal: "SIGINT", ExposedPorts: { "8080/tcp": {} } },
      });
      expect(built.config.Env).toContain("A=b");
      expect(files.get("srv/greeting")).toBe("hello\n");
      expect([files.get("srv/word"), files.get("srv/link"), files.get("srv/uid")]).toEqual([
        "given\n",
        "word",
        "0\n",
      ]);
      expect(files.has("srv/gone")).toBe(false);
      expect(printed).toContain("said given");
      expect(printed.join("\n")).toMatch(/^step 1\/\d+ ?: FROM scratch$/im);
      expect(await get().harness.leaks()).toEqual([]);
    });

    it("builds the stage that is asked for, and copies between stages", async () => {
      const stages = [
        ...[base[0]?.concat(" AS first") ?? "", ...base.slice(1), "RUN echo one > /srv/one"],
        ...["FROM scratch AS second", "COPY --from=first /srv/one /two"],
        ...["FROM scratch AS third", "COPY --from=first /srv/one /three"],
      ];
      const second = await get().build("results", stages, { target: "second" });
      const third = await get().build("results", stages);
      expect([second.files.get("two"), second.files.has("three")]).toEqual(["one\n", false]);
      expect([third.files.get("three"), third.files.has("two")]).toEqual(["one\n", false]);
    });

    it("builds on a root tree of this host, with its owners, and again without reading it", async () => {
      const { tree } = get().harness;
      const digest = `sha256:${"ab".repeat(32)}`;
      await using session = await get().open("results");
      const name = await session.offer(digest, tree, AbortSignal.timeout(60_000));
      expect(await session.offer(digest, { ...tree, path: "/nowhere" }, AbortSignal.timeout(60_000))).toBe(
        name,
      );
      const order = await get().order([`FROM ${name}`, "RUN stat -c %u:%g /srv/gone > /srv/owner"]);
      const files = await get().filesOf(session, await session.build(order));
      expect(files.get("srv/owner")).toBe("1000:1001\n");
    });
  });
}

function describeCache(get: () => Bench): void {
  const lines = [...base, `RUN cat ${uuid} > /made`];
  const made = async (scope: string, options: Partial<BuildOrder> = {}) =>
    (await get().build(scope, lines, options)).files.get("made") ?? "";

  describe("its cache", () => {
    it("gives the same step's result again, and a new one where it is not wanted", async () => {
      const first = await made("cachea");
      expect(first).toMatch(/^[0-9a-f-]{36}\n$/);
      expect(await made("cachea")).toBe(first);
      expect(await made("cachea", { cache: false })).not.toBe(first);
    });

    it("is of one scope: the same instructions never find what another one built", async () => {
      const mine = await made("cacheb");
      expect(await made("cachec")).not.toBe(mine);
      expect(await made("cacheb"), "in spite of a newer one elsewhere").toBe(mine);
    });

    it("does not give what was built with somebody's proxy", async () => {
      const first = await made("cached");
      expect(await made("cached", { args: { http_proxy: "http://proxy.example" } })).not.toBe(first);
    });
  });
}

function describeFailures(get: () => Bench): void {
  describe("a build that goes wrong", () => {
    it("says what the step said, and goes on from there when it is mended", async () => {
      const done = `RUN cat ${uuid} > /done`;
      const broken = [...base, done, "RUN cat /done; echo the reason >&2; exit 3"];
      const failure = await get()
        .build("failures", broken)
        .catch((error) => error);
      expect(failure).toMatchObject({ code: "Invalid", message: expect.stringMatching(/^the reason$/m) });
      expect(failure.message).toMatch(/^the Dockerfile cannot be built: .*\b3\b/);
      const before = /^[0-9a-f-]{36}$/m.exec(failure.message)?.[0];
      const { files } = await get().build("failures", [...base, done, "RUN echo mended"]);
      expect(files.get("done")).toBe(`${before}\n`);
      expect(await get().harness.leaks()).toEqual([]);
    });

    it("has an instruction that does not exist", async () => {
      const building = get().build("failures", [...base, "NONSENSE x"]);
      await expect(building).rejects.toMatchObject({ code: "Invalid" });
    });

    it("is ended, and nothing of it goes on", async () => {
      const stop = new AbortController();
      const reason = new Error("enough");
      const building = get().build("failures", [...base, "RUN echo begun; while :; do sleep 1; done"], {
        signal: stop.signal,
        onLine: (line) => line === "begun" && stop.abort(reason),
      });
      await expect(building).rejects.toBe(reason);
      await expect.poll(() => get().harness.leaks(), { timeout: 20_000 }).toEqual([]);
    });

    it("takes more memory than its steps may have", async () => {
      const hungry = [...base, "RUN all=$(head -c 300000000 /dev/zero | tr '\\0' a); echo $all | wc -c"];
      const building = get().build("failures", hungry, { limits: { memoryMib: 64, cpus: 1 } });
      await expect(building).rejects.toMatchObject({ code: "Invalid" });
      expect(await get().harness.leaks()).toEqual([]);
    });

    it("starts more processes than it may", async () => {
      const many = `i=0; while [ $i -lt ${maxBuildProcesses + 100} ]; do sleep 300 & i=$((i+1)); done; echo all`;
      const printed: string[] = [];
      const onLine = (line: string) => printed.push(line);
      const building = get().build("failures", [...base, `RUN ${many}`], { onLine });
      await expect(building).rejects.toMatchObject({ code: "Invalid" });
      expect(printed).not.toContain("all");
      expect(await get().harness.leaks()).toEqual([]);
    });

    it("asks for more than the host allows", async () => {
      const building = get().build("failures", base, { limits: { memoryMib: 1024 ** 2, cpus: 1000 } });
      await expect(building).rejects.toMatchObject({
        code: "Invalid",
        message: expect.stringMatching(
          /asks for more than this host allows: memoryMib is .*; cpus is 1000, at most/,
        ),
      });
    });
  });
}

function describeWalls(get: () => Bench): void {
  describe("its steps", () => {
    it("reach no file of the host, whatever process they look through", async () => {
      const { path, text } = get().harness.hostFile;
      const look = `for root in / /proc/[0-9]*/root /proc/[0-9]*/cwd; do cat $root${path} 2>/dev/null; done; true`;
      const { printed } = await get().build("walls", [...base, `RUN ${look}; echo looked`]);
      expect(printed).toContain("looked");
      expect(printed.join("\n")).not.toContain(text);
    });

    it("may change their root, and find nothing of the host when they walk out of it", async () => {
      const directory = get().harness.directory;
      const top = "../".repeat(40);
      const looks = [
        '[ -e /jail ] || echo "changed root"',
        `[ -d ${top} ] && echo "at the top"`,
        `[ -e ${top}${directory.slice(1)} ] && echo "is out"`,
      ];
      const inside = `${looks.join("; ")}; true`;
      const walk = "nsenter --root=/jail --wd=/ /bin/busybox sh -c";
      const steps = ["mkdir -p /jail/bin", "cp /bin/busybox /jail/bin/", `${walk} '${inside}'`];
      const { printed } = await get().build("walls", [...base, `RUN ${steps.join(" && ")}`]);
      expect(printed.filter((line) => /^(changed root|at the top|is out)$/.test(line))).toEqual([
        "changed root",
        "at the top",
      ]);
    });

    it("can neither mount nor make or open devices of the host", async () => {
      const tries = [
        "mount -t tmpfs none /srv",
        "mount --bind /proc /srv",
        "mknod /srv/disk b 254 0 && head -c 1 /srv/disk",
        "mknod /srv/kmsg c 1 11 && head -c 1 /srv/kmsg",
        "head -c 1 /dev/kmsg",
        "echo 1 > /proc/sys/kernel/printk",
        "hostname stranger && [ -e /proc/sys/kernel/hostname ] && false",
      ];
      const step = tries
        .map((attempt) => `( ${attempt} ) 2>/dev/null && echo "could: ${attempt}"`)
        .join("; ");
      const { printed } = await get().build("walls", [...base, `RUN ${step}; echo tried`], { cache: false });
      expect(printed).toContain("tried");
      expect(printed.filter((line) => line.startsWith("could: "))).toEqual([]);
    });
  });
}

function rootArchive(busybox: Uint8Array): Buffer {
  const directory = (path: string) => header({ path, type: "directory", mode: 0o755 });
  return Buffer.concat([
    ...["bin", "etc", "srv", "proc", "sys", "dev", "tmp"].map(directory),
    header({ path: "bin/busybox", mode: 0o755, sizeBytes: busybox.length }),
    busybox,
    tarPadding(busybox.length),
    ...["etc/passwd", "etc/group"].map((path) => member(path, Buffer.from("root:x:0:0:root:/:/bin/sh\n"))),
    member("srv/gone", Buffer.from("x")),
    tarEnd,
  ]);
}

function header(entry: Partial<Parameters<typeof writeTarHeader>[0]> & { path: string }): Buffer {
  const attributes = new Map<string, Uint8Array>();
  const common = { type: "file" as const, mode: 0o644, uid: 0, gid: 0, sizeBytes: 0, mtimeSeconds: 0 };
  return writeTarHeader({ ...common, target: "", attributes, ...entry });
}

function archiveOf(files: Record<string, Buffer>): Buffer {
  return Buffer.concat([...Object.entries(files).map(([path, bytes]) => member(path, bytes)), tarEnd]);
}

function member(path: string, bytes: Buffer): Buffer {
  return Buffer.concat([plainFileHeader(path, bytes.length), bytes, tarPadding(bytes.length)]);
}
