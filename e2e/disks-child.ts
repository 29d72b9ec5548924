/**
 * One daemon's share of the root disks, for the test that kills it: `node disks-child.ts IMAGE_DIR ID_BASE DIRECTORY
 * IMAGE_DIGEST [TYPE]` says "ready" and makes disks, containers' and VMs' in turn, as fast as it can; with a TYPE, it makes the
 * root `anew` of that type anew instead.
 */
import { createDisks } from "../src/host/disks/create-disks.ts";
import { createImageStore } from "../src/host/images/create-image-store.ts";

const [imageDir = "", idBase = "", directory = "", imageDigest = "", anew = ""] = process.argv.slice(2);
const signal = new AbortController().signal;
const images = createImageStore({ imageDir, idBase: Number(idBase) });
const disks = createDisks({ directory, images });

await images.containerTree(imageDigest, signal);
await images.vmDisk(imageDigest, signal);
process.stdout.write("ready\n");
if (anew === "vm" || anew === "container") {
  await disks.ensureRoot({ uid: "anew", type: anew, sizeMib: 256, imageDigest, generation: 1 }, signal);
  process.exit();
}
for (let number = 0; number < 20; number++) {
  const type = number % 2 === 0 ? "container" : "vm";
  await disks.ensureRoot({ uid: `killed${number}`, type, sizeMib: 256, imageDigest }, signal);
}
