/**
 * The daemon's process: takes the state directory for itself, wires the parts together, and ends in order when asked to.
 * Guests outlive it. A broken invariant ends it at once and loudly; whoever started it starts it again, and every part
 * goes on from what the store and the host say.
 */
import { writeFileSync } from "node:fs";
import { chmod, mkdir, rename, rm, writeFile } from "node:fs/promises";
import { dirname } from "node:path";
import { systemClock } from "../core/clock.ts";
import { describeError, StrataError } from "../core/errors.ts";
import { createLogger, type Logger } from "../core/logger.ts";
import { isSqliteError } from "../store/sqlite/sqlite-errors.ts";
import { exitAnotherRuns, memoryEnvironment, startTimeOf } from "./daemon-process.ts";
import { readSettings, type Settings } from "./settings.ts";
import { stackInSource } from "./source-stack.ts";
import { type RunningDaemon, startParts } from "./wiring.ts";

/** What is not done by then is left to the next start. */
const shutdownMs = 1_800;
const exitBroken = 70;
/** Guests, which are larger, go first when the host runs out of memory. */
const oomScoreAdjust = "-800";

/** Loads what is otherwise imported when it is first needed. */
export async function loadParts(fake: boolean): Promise<void> {
  await import("../client/channel.ts");
  if (fake) await import("./fake-host-parts.ts");
  else await import("./real-host-parts.ts");
}

export async function runDaemon(): Promise<void> {
  // They have taken effect, and are not for the programs that this one starts.
  for (const name of Object.keys(memoryEnvironment)) delete process.env[name];
  const settings = readSettings(process.env);
  const logger = createLogger(settings.logLevel);
  for (const event of ["uncaughtException", "unhandledRejection"] as const) {
    process.on(event, (error: unknown) => {
      logger.error(
        { error: describeError(error), stack: stackOf(error) },
        "the daemon ends: a broken invariant",
      );
      process.exit(exitBroken);
    });
  }
  let daemon: RunningDaemon;
  try {
    await prepareDirectories(settings);
    daemon = await startParts(settings, logger, (httpsPort) => writePidFile(settings, httpsPort));
  } catch (error) {
    logger.error(
      { error: describeError(error) },
      error instanceof StrataError ? error.message : "cannot start",
    );
    process.exit(isTaken(error) ? exitAnotherRuns : 1);
  }
  lowerOomScore(logger);
  endOnSignals(daemon, settings, logger);
  logger.info(
    {
      socket: settings.socketPath,
      httpsPort: daemon.httpsPort,
      namespace: settings.namespace,
      fake: settings.fake,
    },
    "the daemon runs",
  );
}

/**
 * Others may pass through, and see nothing: guests run as users of their own and have to reach their files. What is
 * secret has a mode of its own.
 */
async function prepareDirectories(settings: Settings): Promise<void> {
  process.umask(0o022);
  const { stateDir, runDir, socketPath } = settings;
  const base = settings.ownDirectory === undefined ? [] : [settings.ownDirectory];
  for (const directory of [...base, stateDir, runDir]) {
    await mkdir(directory, { recursive: true, mode: 0o711 });
    await chmod(directory, 0o711);
  }
  await mkdir(dirname(socketPath), { recursive: true, mode: 0o711 });
}

/** Pid and start time identify this process for good; the port may have been any free one. */
async function writePidFile(settings: Settings, httpsPort: number): Promise<void> {
  const part = `${settings.pidFile}.part`;
  await writeFile(part, `${process.pid} ${startTimeOf(process.pid)} ${httpsPort}\n`, { mode: 0o600 });
  await rename(part, settings.pidFile);
}

function isTaken(error: unknown): boolean {
  return error instanceof StrataError && isSqliteError(error.cause, "busy");
}

function lowerOomScore(logger: Logger): void {
  if (process.getuid?.() !== 0) return;
  try {
    writeFileSync("/proc/self/oom_score_adj", oomScoreAdjust);
  } catch (error) {
    logger.warn({ error: describeError(error) }, "cannot lower the out-of-memory score");
  }
}

function endOnSignals(daemon: RunningDaemon, settings: Settings, logger: Logger): void {
  let ending = false;
  const end = async (signal: NodeJS.Signals) => {
    if (ending) return;
    ending = true;
    logger.info({ signal }, "the daemon ends; guests keep running");
    systemClock.after(shutdownMs, () => process.exit(0));
    await daemon.close();
    await rm(settings.pidFile, { force: true });
    process.exit(0);
  };
  for (const signal of ["SIGTERM", "SIGINT"] as const) {
    process.on(signal, () => {
      end(signal).catch((error: unknown) => {
        logger.error({ error: describeError(error) }, "the daemon ends with an error");
        process.exit(1);
      });
    });
  }
  process.on("SIGHUP", () => {}); // the terminal that started it may go away
}

function stackOf(error: unknown): string | undefined {
  return error instanceof Error && error.stack ? stackInSource(error.stack) : undefined;
}
