/** What the tests of images and disks share: a directory of their own, and a look at everything that refers to it. */
import { createReadStream, readdirSync, readFileSync, readlinkSync } from "node:fs";
import { mkdir, mkdtemp, rm } from "node:fs/promises";
import { join } from "node:path";
import { createImageStore, type ImageStoreOptions } from "../src/host/images/create-image-store.ts";
import type { ImageStore, StoredImage } from "../src/host/images/image-store.ts";
import { run } from "../src/host/run.ts";
import type { ArtefactFormat, Boot, ImageSource } from "../src/kinds/image.ts";
import type { Progress } from "../src/kinds/kind.ts";

export const idBase = 1_500_000;
export const signal = new AbortController().signal;

export class ImagesBox {
  readonly directory: string;
  readonly imageDir: string;

  private constructor(directory: string) {
    this.directory = directory;
    this.imageDir = join(directory, "images");
  }

  static async create(): Promise<ImagesBox> {
    await mkdir("/var/tmp", { recursive: true });
    return new ImagesBox(await mkdtemp("/var/tmp/strata-images-test-"));
  }

  async store(options: Partial<ImageStoreOptions> = {}): Promise<ImageStore> {
    const store = createImageStore({ imageDir: this.imageDir, idBase, ...options });
    await store.recover();
    return store;
  }

  /** Processes, mounts in any namespace and loop devices that refer to this directory. */
  leaks(): string[] {
    const found: string[] = [];
    for (const pid of readdirSync("/proc").filter(
      (name) => /^\d+$/.test(name) && Number(name) !== process.pid,
    )) {
      const about = [
        ...read(`/proc/${pid}/cmdline`),
        ...read(`/proc/${pid}/environ`),
        ...link(`/proc/${pid}/cwd`),
      ];
      if (about.some((text) => text.includes(this.directory)))
        found.push(`process ${pid} ${about[0]?.slice(0, 200)}`);
      const mounts = read(`/proc/${pid}/mountinfo`).flatMap((text) => text.split("\n"));
      const mine = mounts.find((line) => line.includes(this.directory));
      if (mine) found.push(`mount ${mine} seen by ${pid}`);
    }
    const own = read("/proc/self/mountinfo").flatMap((text) => text.split("\n"));
    found.push(...own.filter((line) => line.includes(this.directory)));
    for (const name of readdirSync("/sys/block").filter((device) => device.startsWith("loop"))) {
      const [file = ""] = read(`/sys/block/${name}/loop/backing_file`);
      if (file.includes(this.directory)) found.push(`${name} ${file}`);
    }
    return found;
  }

  async remove(): Promise<void> {
    await rm(this.directory, { recursive: true, force: true });
  }
}

function read(path: string): string[] {
  try {
    return [readFileSync(path, "latin1")];
  } catch {
    return []; // ended meanwhile
  }
}

function link(path: string): string[] {
  try {
    return [readlinkSync(path)];
  } catch {
    return [];
  }
}

export function upload(format: ArtefactFormat = "tar", boot?: Boot): ImageSource {
  return { type: "upload", upload: "test", format, ...(boot && { boot }) };
}

/** Makes an image from a file, as if it had been uploaded. */
/** The image alone: how it came to be is another matter, and differs between equal ones. */
export async function make(
  store: ImageStore,
  source: ImageSource,
  file = "/dev/null",
  onProgress: (progress: Progress) => void = () => {},
): Promise<StoredImage> {
  const options = { signal, onProgress, project: "default", openUpload: async () => createReadStream(file) };
  const { origin: _how, ...image } = await store.make(source, options);
  return image;
}

/** Runs a fixed shell script with arguments. */
export async function sh(script: string, ...args: string[]): Promise<string> {
  const { stdout } = await run("sh", ["-euc", script, "sh", ...args], { timeoutMs: 120_000 });
  return stdout.trim();
}
