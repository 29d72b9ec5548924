/**
 * A real database in a tiny guest: SQLite in WAL mode with `synchronous=FULL`, which writes all the time to a database on its
 * root and then to one on its volume. A row is acknowledged once both have committed it; what is acknowledged, and whether all
 * rows are there and both files are sound, is asked over HTTP, from outside.
 */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect } from "vitest";
import { run } from "../src/host/run.ts";
import type { Instance } from "../src/kinds/instance.ts";
import { addressOf, httpGet, until } from "./test-daemon.ts";
import { tinyImage } from "./tiny-image.ts";

/** How many rows a sound database has, that all are there and have their text; `torn` when not. */
export const wholeSql = `select case when (select group_concat(integrity_check) from pragma_integrity_check) = 'ok'
  and count(*) = coalesce(max(id), 0) and coalesce(sum(body <> printf('%0200d', id)), 0) = 0
  then count(*) else 'torn' end from rows`;

const prologue = `#!/bin/busybox sh
export PATH=/bin:/sbin:/usr/bin
mkdir -p /run/www/cgi-bin
cat > /run/whole <<'END'
#!/bin/busybox sh
exec /usr/bin/sqlite3 -cmd '.timeout 20000' $1 "${wholeSql}"
END
chmod 755 /run/whole
`;

/** User data: runs at each start. Its volume is the one with the database, and the first disk there is before there is one. */
export const databaseWriter = `${prologue}
mkdir -p /mnt/data
if [ -b /dev/vda ]; then
  tries=0
  while [ ! -b /dev/sda ] && [ $tries -lt 100 ]; do usleep 50000; tries=$((tries + 1)); done
  for disk in /dev/sd? /dev/sda; do
    mount -t ext4 $disk /mnt/data || continue
    [ -e /mnt/data/rows.db ] && break
    [ $disk = /dev/sda ] && [ ! -b /dev/sdb ] && break
    umount /mnt/data
  done
fi
for file in /rows.db /mnt/data/rows.db; do
  sqlite3 $file "pragma journal_mode=wal; create table if not exists rows(id integer primary key, body text)" >/dev/null
done
root=$(/run/whole /rows.db); data=$(/run/whole /mnt/data/rows.db)
printf '#!/bin/busybox sh\\nprintf "Content-Type: text/plain\\\\r\\\\n\\\\r\\\\n"\\necho $(/run/whole /rows.db) $(/run/whole /mnt/data/rows.db)\\n' > /run/www/cgi-bin/whole
printf '#!/bin/busybox sh\\nexport PATH=/bin\\nprintf "Content-Type: text/plain\\\\r\\\\n\\\\r\\\\n"\\ngrep " /mnt/" /proc/mounts | cut -d" " -f2\\n[ -b /dev/vda ] && ls -d /sys/block/sd*\\n' > /run/www/cgi-bin/disks
chmod 755 /run/www/cgi-bin/*
echo "$root $data" > /run/www/found
i=$root
[ $data -lt $i ] && i=$data
{
  echo "attach '/mnt/data/rows.db' as data; pragma main.synchronous=full; pragma data.synchronous=full;"
  while :; do
    i=$((i + 1))
    [ $i -gt $root ] && echo "insert into main.rows values($i, printf('%0200d', $i));"
    [ $i -gt $data ] && echo "insert into data.rows values($i, printf('%0200d', $i));"
    echo "select writefile('/run/www/acked', '$i');"
    usleep 10000
  done
} | sqlite3 -bail /rows.db >/run/writer.log 2>&1
`;

/** User data of an instance of an image of such a guest: it only says what it finds. */
export const databaseReader = `${prologue}
echo "$(/run/whole /rows.db) 0" > /run/www/found
`;

/** The tiny image with the host's own SQLite in it; the caller removes it. */
export async function databaseImage(directory: string): Promise<string> {
  const path = join(directory, "tiny-sqlite.tar");
  const stage = await mkdtemp(join(tmpdir(), "strata-sqlite-"));
  const script = `cp "$1" "$2"; cd "$3"
    { ldd /usr/bin/sqlite3 | grep -o '/[^ ]*'; echo /usr/bin/sqlite3; } | xargs cp -L --parents -t .
    tar --append --file "$2" --owner=0 --group=0 --numeric-owner *`;
  try {
    await run("sh", ["-euc", script, "sh", await tinyImage(), path, stage]);
  } finally {
    await rm(stage, { recursive: true, force: true });
  }
  return path;
}

export interface Rows {
  root: number;
  data: number;
}

async function text(instance: Instance, path: string, timeoutMs = 5_000): Promise<string> {
  const { status, text: found } = await httpGet(`http://${addressOf(instance)}/${path}`, timeoutMs);
  return status === 200 ? found.trim() : "";
}

async function untilSaid(instance: Instance, path: string, what: string, timeoutMs = 5_000): Promise<string> {
  let said = "";
  const asked = async () => {
    said = await text(instance, path, timeoutMs);
    return said !== "";
  };
  await until(`${instance.metadata.name} says ${what}`, asked, 120_000, 50);
  return said;
}

/** Number of the last row that was acknowledged; waits until the writer runs. */
export async function acknowledgedRow(instance: Instance): Promise<number> {
  return Number(await untilSaid(instance, "acked", "what it has acknowledged"));
}

export async function untilWritten(instance: Instance, row: number): Promise<number> {
  const name = instance.metadata.name;
  let last = 0;
  const written = async () => {
    last = await acknowledgedRow(instance);
    return last >= row;
  };
  await until(`${name} has acknowledged row ${row}`, written, 120_000, 50);
  return last;
}

/** What its last start found on its root and on its volume; NaN where a database was not sound. */
export async function databasesAtStart(instance: Instance): Promise<Rows> {
  return rowsIn(await untilSaid(instance, "found", "what it found"));
}

/** Checks both databases while they are written to, and that nothing acknowledged is missing. */
export async function expectSound(instance: Instance): Promise<Rows> {
  const sure = await acknowledgedRow(instance);
  const rows = rowsIn(await untilSaid(instance, "cgi-bin/whole", "that its databases are whole", 60_000));
  expect(rows.root, `${instance.metadata.name}: root`).toBeGreaterThanOrEqual(sure);
  expect(rows.data, `${instance.metadata.name}: volume`).toBeGreaterThanOrEqual(sure);
  return rows;
}

/** Where it has volumes mounted, and the disks of a virtual machine but for its root. */
export async function disksInside(instance: Instance): Promise<string[]> {
  return (await untilSaid(instance, "cgi-bin/disks", "which disks it has")).split("\n");
}

/** Another text after each start; empty while it does not answer. */
export function startId(instance: Instance): Promise<string> {
  return text(instance, "boot-id");
}

function rowsIn(said: string): Rows {
  const [root = Number.NaN, data = Number.NaN] = said.split(" ").map(Number);
  return { root, data };
}
