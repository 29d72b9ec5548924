/**
 * Cards that come and go while a container runs. A card is recorded before it is made and forgotten after it is gone, so
 * a guest that is destroyed after a crash of ours in between leaves nothing. A port's alias is its run's id: it is set
 * last, and says that the card is complete and of this run.
 */
import { type FileHandle, open } from "node:fs/promises";
import { StrataError } from "../../core/errors.ts";
import type { JsonObject } from "../../core/json.ts";
import { joinBridge } from "../../host/networks/bridge-port.ts";
import { run } from "../../host/run.ts";
import type { Cards, GuestNic } from "../driver.ts";
import { cardTexts, hookNetns, ruleRemovals } from "./cards.ts";
import type { GuestFiles } from "./guest-files.ts";
import { changing, type LxcChanges, requireSpec } from "./lxc-changes.ts";
import { checkGuest } from "./lxc-config.ts";
import type { LxcHost } from "./lxc-host.ts";

type Card = Pick<GuestNic, "netns" | "port">;

export function lxcCards(changes: LxcChanges): Cards<JsonObject> {
  return {
    attach(handle, nic, signal) {
      signal.throwIfAborted();
      const files = changes.files(handle);
      return changing(files, () => attach(changes, files, nic, signal));
    },
    detach(handle, card, signal) {
      signal.throwIfAborted();
      const files = changes.files(handle);
      return changing(files, () => detach(changes, files, card, signal));
    },
  };
}

async function attach(
  changes: LxcChanges,
  files: GuestFiles,
  nic: GuestNic,
  signal: AbortSignal,
): Promise<void> {
  const guest = await requireSpec(files);
  const [first, ...further] = guest.nics;
  if (first === undefined) {
    throw new StrataError(
      "Unsupported",
      "a container without a network card of its own can have no further ones",
    );
  }
  if (first.port === nic.port) return;
  const others = further.filter(({ port }) => port !== nic.port);
  const next = { ...guest, nics: [first, ...others, nic] };
  checkGuest(next);
  await files.writeSpec(next);
  if (!(await changes.isRunning(guest.uid))) return;
  const host = await changes.host();
  const { run: mark = "" } = await files.readRun();
  const found = await markOf(host, nic);
  if (found === mark) return;
  const netns = await openNetns(changes, files);
  const guestNetns = `/proc/${process.pid}/fd/${netns.fd}`;
  try {
    // What a killed predecessor left half-made, or half taken away.
    if (found !== undefined) await removePorts(host, [nic]);
    if (others.length < further.length) await removeRules(host, nic, guestNetns, signal);
    await files.writeCard(nic, cardTexts(nic, { first: false, mark, guestNetns: hookNetns }));
    await plug(host, nic, { mark, guestNetns }, signal);
  } catch (cause) {
    await unplug(host, files, nic);
    await files.writeSpec({ ...guest, nics: [first, ...others] });
    signal.throwIfAborted();
    throw unplugged(nic, cause);
  } finally {
    await netns.close();
  }
}

async function detach(
  changes: LxcChanges,
  files: GuestFiles,
  card: Card,
  signal: AbortSignal,
): Promise<void> {
  const guest = await files.readSpec();
  if (guest?.nics[0]?.port === card.port) {
    throw new StrataError("Invalid", "a container's first network card is its own for life");
  }
  const host = await changes.host();
  await unplug(host, files, card);
  const nic = guest?.nics.find(({ port }) => port === card.port);
  if (guest === undefined || nic === undefined) return;
  if (await changes.isRunning(guest.uid)) {
    const netns = await openNetns(changes, files);
    try {
      await removeRules(host, nic, `/proc/${process.pid}/fd/${netns.fd}`, signal);
    } finally {
      await netns.close();
    }
  }
  await files.writeSpec({ ...guest, nics: guest.nics.filter(({ port }) => port !== card.port) });
}

async function plug(
  host: LxcHost,
  nic: GuestNic,
  { mark, guestNetns }: { mark: string; guestNetns: string },
  signal: AbortSignal,
): Promise<void> {
  const texts = cardTexts(nic, { first: false, mark, guestNetns });
  await joinBridge(nic.netns, [nic], { before: texts.pair, signal });
  const within = (netns: string, options: readonly string[], input: string) =>
    run(host.nsenter, [`--net=${netns}`, "--", host.ip, ...options, "-batch", "-"], { input, signal });
  await within(guestNetns, [], texts.inside);
  if (texts.inside6 !== "") await within(guestNetns, ["-6"], texts.inside6);
  await within(nic.netns, [], `link set dev ${nic.port} alias ${mark}\n`);
}

async function unplug(host: LxcHost, files: GuestFiles, card: Card): Promise<void> {
  await files.removeCard(card.port);
  await removePorts(host, [card]);
}

/** Absent ones are success, and so is an absent namespace. */
export async function removePorts(host: LxcHost, cards: readonly Card[]): Promise<void> {
  for (const [netns, ofNetns] of Map.groupBy(cards, (card) => card.netns)) {
    const input = ofNetns.map(({ port }) => `link del dev ${port}\n`).join("");
    const args = [`--net=${netns}`, "--", host.ip, "-force", "-batch", "-"];
    await run(host.nsenter, args, { input, expected: [0, 1, 2] });
  }
}

async function removeRules(host: LxcHost, nic: GuestNic, netns: string, signal: AbortSignal): Promise<void> {
  const { inside, inside6 } = ruleRemovals(nic);
  for (const [family, input] of [
    ["-4", inside],
    ["-6", inside6],
  ] as const) {
    if (input === "") continue;
    const args = [`--net=${netns}`, "--", host.ip, family, "-force", "-batch", "-"];
    await run(host.nsenter, args, { input, expected: [0, 1, 2], signal });
  }
}

/** The run in which the port was completed; empty for one that was not, undefined for none. */
async function markOf(host: LxcHost, { netns, port }: Card): Promise<string | undefined> {
  const args = [`--net=${netns}`, "--", host.ip, "-j", "link", "show", "dev", port];
  const { stdout, status } = await run(host.nsenter, args, { expected: [0, 1] });
  if (status !== 0) return undefined;
  const [link] = JSON.parse(stdout) as { ifalias?: string }[];
  return link?.ifalias ?? "";
}

/**
 * Held open, so that it stays the guest's whatever becomes of the process. The process is looked at after the opening:
 * one that took its id is not in the guest's group.
 */
async function openNetns(changes: LxcChanges, files: GuestFiles): Promise<FileHandle> {
  const pid = (await files.readRun()).init?.pid;
  const handle = await open(`/proc/${pid}/ns/net`).catch((cause) => {
    throw new StrataError("Unavailable", "the container is not running", { cause });
  });
  if ((await changes.initPid(files)) === pid) return handle;
  await handle.close();
  throw new StrataError("Unavailable", "the container is not running");
}

function unplugged(nic: GuestNic, cause: unknown): StrataError {
  return new StrataError(
    "Unavailable",
    `cannot join the container's network card ${nic.name} to bridge ${nic.bridge}; the network is probably not ready`,
    { cause },
  );
}
