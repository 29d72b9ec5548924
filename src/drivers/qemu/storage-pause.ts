/**
 * QEMU pauses a guest whose write finds no space on the host, so that nothing is lost; somebody must let it go on once
 * there is space again. That is done here: for as long as a guest is watched, a connection to its second monitor listens
 * for such pauses, and every few seconds the guest is given another try.
 */
import type { Clock } from "../../core/clock.ts";
import { describeError } from "../../core/errors.ts";
import { isJsonObject } from "../../core/json.ts";
import type { Logger } from "../../core/logger.ts";
import { QmpClient, type QmpEvent } from "./qmp-client.ts";

const retryMs = 10_000;
const connectTimeoutMs = 60_000;

/** The returned function ends it. */
export function continueAfterPauses(
  path: string,
  { clock, logger, title }: { clock: Clock; logger: Logger; title: string },
): () => void {
  const ended = new AbortController();
  let cancel = () => {};
  let monitor: QmpClient | undefined;
  const retryLater = () => {
    logger.warn({ guest: title }, "a guest is paused: its disk needs space that the host does not have");
    cancel();
    cancel = clock.after(retryMs, () => {
      monitor?.execute("cont").catch((error) => {
        logger.warn({ guest: title, error: describeError(error) }, "a paused guest could not be continued");
      });
    });
  };
  const onEvent = ({ event, data }: QmpEvent) => {
    if (event === "BLOCK_IO_ERROR" && data.action === "stop") retryLater();
  };
  const listen = async () => {
    monitor = await QmpClient.connect(path, { clock, connectTimeoutMs, onEvent }, ended.signal);
    if (ended.signal.aborted) return monitor.close();
    // It may have been paused while nobody listened.
    const status = await monitor.execute("query-status");
    if (isJsonObject(status) && status.status === "io-error") retryLater();
  };
  listen().catch((error) => {
    // It has ended, or another driver over the same guests listens.
    if (!ended.signal.aborted) logger.debug({ guest: title, error: describeError(error) }, "not listening");
  });
  return () => {
    ended.abort();
    cancel();
    monitor?.close();
  };
}
