/**
 * One daemon's share of snapshots of several disks, for the test that kills it: `node disk-parts-child.ts DIRECTORY VERB
 * SNAPSHOT DISK…` says "ready" and copies the disks together (VERB take), or puts them back (VERB restore).
 */
import { createDisks } from "../src/host/disks/create-disks.ts";

const [directory = "", verb = "", snapshot = "", ...uids] = process.argv.slice(2);
const signal = new AbortController().signal;
const noImage = () => Promise.reject(new Error("no image is needed"));
const disks = createDisks({ directory, images: { containerTree: noImage, vmDisk: noImage } });

process.stdout.write("ready\n");
if (verb === "take") await disks.copyTogether(uids, snapshot, signal);
else await disks.restoreTogether(snapshot, uids, signal);
