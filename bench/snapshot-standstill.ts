/**
 * How long a writer on a volume of a container stands still while a snapshot of it is taken where blocks are not shared:
 * `node bench/snapshot-standstill.ts [DIRECTORY] [MIB]`, as root. The writer appends rows, each on disk before the next.
 */
import { spawn } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { systemClock } from "../src/core/clock.ts";
import { createDisks } from "../src/host/disks/create-disks.ts";
import { run } from "../src/host/run.ts";

const [place = "/var/tmp", mib = "1024"] = process.argv.slice(2);
const signal = new AbortController().signal;
const noImage = () => Promise.reject(new Error("no image is needed"));
const directory = await mkdtemp(join(place, "strata-standstill-"));
const disks = createDisks({ directory, images: { containerTree: noImage, vmDisk: noImage } });
const ids = { idBase: 1_500_000, idCount: 65_536 };

/** Writes rows until the file `stop` is there, and prints how many, and the longest time that one took, in ms. */
const writer = `use Time::HiRes qw(time); use IO::Handle; my $tree = shift; open(my $rows, ">>", "$tree/rows") or die; my ($n, $most) = (0, 0);
until (-e "$tree/stop") { my $t = time; printf $rows "%015d\\n", ++$n; $rows->flush; $rows->sync; my $took = time - $t; $most = $took if $took > $most }
printf "%d %d\\n", $n, $most * 1000`;

const asGuest = ["--reuid", String(ids.idBase), "--regid", String(ids.idBase), "--clear-groups"];
const guest = [...asGuest, "--inh-caps", "+dac_override", "--ambient-caps", "+dac_override"];

try {
  const request = { uid: "data", sizeMib: Number(mib) * 2, fileSystem: "ext4" } as const;
  const tree = await disks.mountData(request, ids, signal);
  const fill = [
    "dd",
    "if=/dev/urandom",
    `of=${tree}/fill`,
    "bs=1M",
    `count=${mib}`,
    "conv=fsync",
    "status=none",
  ];
  await run("setpriv", [...guest, ...fill], { timeoutMs: 300_000 });
  for (let round = 0; round < 3; round++) {
    const child = spawn("setpriv", [...guest, "perl", "-e", writer, tree], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    const said = text(child.stdout); // ends with it
    await systemClock.sleep(1_000);
    const begun = systemClock.monotonicMs();
    await disks.copyTogether(["data"], "snapshot", signal);
    const tookMs = Math.round(systemClock.monotonicMs() - begun);
    await systemClock.sleep(500);
    await run("setpriv", [...guest, "touch", `${tree}/stop`]);
    const [rows, longestMs] = (await said).trim().split(" ");
    console.log(
      `${mib} MiB: taken in ${tookMs} ms, ${rows} rows written in all, the longest took ${longestMs} ms`,
    );
    await run("setpriv", [...guest, "rm", `${tree}/stop`]);
    await disks.remove("snapshot", signal);
  }
} finally {
  for (const uid of await disks.list()) await disks.remove(uid, signal);
  await rm(directory, { recursive: true });
}
