/**
 * One daemon's share of a volume's disk, for the test that kills it: `node data-disks-child.ts DIRECTORY UID` says "ready",
 * makes the volume, mounts it, lets it go, grows it, and so on once more.
 */
import { createDisks } from "../src/host/disks/create-disks.ts";

const [directory = "", uid = ""] = process.argv.slice(2);
const signal = new AbortController().signal;
const noImage = () => Promise.reject(new Error("no image is needed"));
const disks = createDisks({ directory, images: { containerTree: noImage, vmDisk: noImage } });
const ids = { idBase: 1_500_000, idCount: 65_536 };

process.stdout.write("ready\n");
await disks.mountData({ uid, sizeMib: 64, fileSystem: "ext4" }, ids, signal);
await disks.releaseData(uid, signal);
await disks.mountData({ uid, sizeMib: 256, fileSystem: "ext4" }, ids, signal);
await disks.releaseData(uid, signal);
