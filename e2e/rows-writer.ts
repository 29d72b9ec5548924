/**
 * A small database in a tiny guest: it appends rows to a file on its root and to one on its volume, each on disk before the
 * next, and acknowledges a row only then. What it has acknowledged is read over HTTP, from outside.
 *
 * A row is its number in 15 digits; what a power cut left of an incomplete one is dropped at the next start.
 */
import { createReadStream } from "node:fs";
import { expect } from "vitest";
import { systemClock } from "../src/core/clock.ts";
import type { Instance } from "../src/kinds/instance.ts";
import { addressOf, httpGet, until } from "./test-daemon.ts";

const rowBytes = 16;
const pieceMib = 4;

/**
 * User data: runs at each start. `fillMib`, a multiple of 4: so much lies on the volume beside the rows, from the first start
 * on; where that cannot be, there are no rows either.
 */
export const rowsWriterBeside = (fillMib: number) => `#!/bin/busybox sh
export PATH=/bin:/sbin
mkdir -p /mnt/data /run/www
if [ -b /dev/vda ]; then
  tries=0
  while [ ! -b /dev/sda ] && [ $tries -lt 100 ]; do usleep 50000; tries=$((tries + 1)); done
  mount -t ext4 /dev/sda /mnt/data || exit
fi
if [ ${fillMib} -gt 0 ] && [ ! -e /mnt/data/filled ]; then
  # No zeros: copies leave holes where they are. Emulated, making them takes longer than writing them.
  tr '\\0' x < /dev/zero | head -c ${pieceMib * 1024 ** 2} > /run/piece || exit
  n=0
  while [ $n -lt ${fillMib} ]; do cat /run/piece || exit; n=$((n + ${pieceMib})); done > /mnt/data/fill
  rm /run/piece
  { sync /mnt/data/fill && touch /mnt/data/filled && sync /mnt/data/filled; } || exit
fi
recover() {
  touch $1
  n=$(($(stat -c %s $1) / ${rowBytes}))
  truncate -s $((n * ${rowBytes})) $1
  sync $1
}
recover /rows; root=$n
recover /mnt/data/rows; data=$n
echo "$root $data" > /run/www/found
ln -sf /rows /run/www/root-rows
ln -sf /mnt/data/rows /run/www/data-rows
i=$root
[ $data -lt $i ] && i=$data
while :; do
  i=$((i + 1))
  [ $i -gt $root ] && { printf '%015d\\n' $i >> /rows; sync /rows; }
  [ $i -gt $data ] && { printf '%015d\\n' $i >> /mnt/data/rows; sync /mnt/data/rows; }
  echo $i > /run/www/acked.new
  mv /run/www/acked.new /run/www/acked
  usleep 2000
done
`;

export const rowsWriter = rowsWriterBeside(0);

/** User data of an instance that was made of an image of such a guest: it only says how many whole rows there are. */
export const rowsOfImage = `#!/bin/busybox sh
export PATH=/bin:/sbin
mkdir -p /run/www
awk '$0 != sprintf("%015d", NR) { torn = 1 } END { print torn ? "torn" : NR }' /rows > /run/www/found
`;

/** NaN until it has said so, or when a row is not what it should be. */
export async function rowsFound(instance: Instance): Promise<number> {
  const said = await text(instance, "found");
  return said === "" ? Number.NaN : Number(said);
}

async function text(instance: Instance, path: string): Promise<string> {
  const { status, text: found } = await httpGet(`http://${addressOf(instance)}/${path}`, 5_000);
  return status === 200 ? found.trim() : "";
}

/** Number of the last row that was acknowledged; 0 while the writer does not run. */
export async function acknowledged(instance: Instance): Promise<number> {
  return Number(await text(instance, "acked"));
}

export async function untilAcknowledged(instance: Instance, row: number, limitMs = 120_000): Promise<number> {
  const name = instance.metadata.name;
  await until(
    `${name} has acknowledged row ${row}`,
    async () => (await acknowledged(instance)) >= row,
    limitMs,
    50,
  );
  return acknowledged(instance);
}

/** The longest time without a new row while `work` goes on, in ms, as it is seen from outside. */
export async function longestStandstill(instance: Instance, work: Promise<unknown>): Promise<number> {
  let longestMs = 0;
  let over = false;
  const ended = work.finally(() => {
    over = true;
  });
  let row = await acknowledged(instance);
  let since = systemClock.monotonicMs();
  while (!over) {
    const now = await acknowledged(instance);
    longestMs = Math.max(longestMs, systemClock.monotonicMs() - since);
    if (now === row) continue;
    row = now;
    since = systemClock.monotonicMs();
  }
  await ended;
  return Math.round(longestMs);
}

/** How many rows its last start found on its root and on its volume: what was on the disks. */
export async function foundAtStart(instance: Instance): Promise<{ root: number; data: number }> {
  await until(
    `${instance.metadata.name} writes`,
    async () => (await acknowledged(instance)) > 0,
    120_000,
    50,
  );
  const [root = Number.NaN, data = Number.NaN] = (await text(instance, "found")).split(" ").map(Number);
  return { root, data };
}

/** Every row up to the last is there once, whole and in order, on both disks. */
export async function expectWhole(instance: Instance): Promise<void> {
  const acked = await acknowledged(instance);
  for (const path of ["root-rows", "data-rows"]) {
    const whole = (await text(instance, path)).split("\n").filter((row) => row.length === rowBytes - 1);
    expect(whole.length, `${instance.metadata.name} ${path}`).toBeGreaterThanOrEqual(acked);
    expect(whole.findIndex((row, index) => Number(row) !== index + 1)).toBe(-1);
  }
}

/** The file of a volume that was filled to that size, or of a copy of it, has all that it was filled with. */
export async function expectFilled(path: string, fillMib: number): Promise<void> {
  const filled = Buffer.alloc(4096, "x");
  let found = 0;
  for await (const chunk of createReadStream(path, { highWaterMark: 1024 ** 2 })) {
    for (let at = 0; at < chunk.length; at += filled.length) {
      if (filled.equals(chunk.subarray(at, at + filled.length))) found++;
    }
  }
  expect((found * filled.length) / 1024 ** 2, `MiB in ${path}`).toBeGreaterThanOrEqual(fillMib);
}

/** Identifies one start of the guest. */
export function bootId(instance: Instance): Promise<string> {
  return text(instance, "boot-id");
}

export function hostNameInside(instance: Instance): Promise<string> {
  return text(instance, "index.html");
}
