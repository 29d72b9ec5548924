/**
 * One daemon's share of the image store, for tests that kill it or run two at once:
 * `node images-child.ts IMAGE_DIR ID_BASE SOURCE_JSON UPLOAD_FILE [disk]` makes an image (and its VM disk) and prints
 * each progress and the result as a line of JSON.
 */
import { createReadStream } from "node:fs";
import { describeError } from "../src/core/errors.ts";
import { createImageStore } from "../src/host/images/create-image-store.ts";
import { imageSourceSchema } from "../src/kinds/image.ts";

const [imageDir = "", idBase = "", source = "", upload = "", disk] = process.argv.slice(2);
const print = (value: unknown) => process.stdout.write(`${JSON.stringify(value)}\n`);
const signal = new AbortController().signal;

try {
  const store = createImageStore({ imageDir, idBase: Number(idBase) });
  await store.recover();
  print({ ready: true });
  const image = await store.make(imageSourceSchema.parse(JSON.parse(source)), {
    signal,
    onProgress: (progress) => print({ progress }),
    project: "default",
    openUpload: async () => createReadStream(upload),
  });
  if (disk) await store.vmDisk(image.digest, signal);
  print({ image });
} catch (error) {
  print({ error: describeError(error) });
  process.exitCode = 1;
}
