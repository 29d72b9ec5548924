import type { Clock } from "../../core/clock.ts";
import { describeError } from "../../core/errors.ts";
import type { Logger } from "../../core/logger.ts";
import type { Random } from "../../core/random.ts";
import { metadataEndpoint, type Networks } from "../../host/networks/networks.ts";
import { type FactViews, findInstance } from "./find-instance.ts";
import { createMetadataService, type MetadataService } from "./metadata-service.ts";

export interface ServeMetadataOptions {
  networks: Networks;
  views: FactViews;
  /** See MetadataServiceOptions. */
  key: Uint8Array;
  /** Default: where the networks lead their guests. */
  port?: number;
  clock: Clock;
  random: Random;
  logger: Logger;
}

const retryMs = 1_000;

/**
 * The same networks, but each is answered for its guests' metadata from the moment that it is made until it is removed or
 * the signal aborts. That it cannot listen is no failure of a network: it tries again.
 */
export function serveMetadata(options: ServeMetadataOptions, signal: AbortSignal): Networks {
  const { networks, views, clock, random, logger, key } = options;
  /** Uids of networks by their host address. */
  const places = new Map<string, string>();
  const service = createMetadataService({
    lookup(hostAddress, source) {
      const uid = places.get(hostAddress);
      return uid === undefined ? undefined : findInstance(views, uid, source);
    },
    port: options.port ?? metadataEndpoint.hostPort,
    key,
    clock,
    random,
    logger,
  });
  signal.addEventListener("abort", () => void service.close(), { once: true });
  const leave = async (uid: string, except?: string) => {
    for (const [address, network] of [...places]) {
      if (network !== uid || address === except) continue;
      places.delete(address);
      await service.unlisten(address);
    }
  };
  return {
    async ensure(request, ensureSignal) {
      const attachment = await networks.ensure(request, ensureSignal);
      const { hostAddress } = attachment;
      await leave(request.uid, hostAddress);
      places.set(hostAddress, request.uid);
      await keepTrying(
        { service, clock, logger, signal },
        hostAddress,
        () => places.get(hostAddress) === request.uid,
      );
      return attachment;
    },
    async remove(uid, removeSignal) {
      await leave(uid);
      await networks.remove(uid, removeSignal);
    },
    apply: (...policy) => networks.apply(...policy),
    list: () => networks.list(),
    events: (eventsSignal) => networks.events(eventsSignal),
  };
}

interface Listening {
  service: MetadataService;
  clock: Clock;
  logger: Logger;
  signal: AbortSignal;
}

/** Tries until it listens, is not wanted any more, or the signal aborts; resolves after the first try. */
async function keepTrying(
  parts: Listening,
  hostAddress: string,
  wanted: () => boolean,
  isRetry = false,
): Promise<void> {
  const { service, clock, logger, signal } = parts;
  if (signal.aborted || !wanted()) return;
  try {
    await service.listen(hostAddress);
  } catch (error) {
    if (!isRetry) {
      const message =
        "guests of a network get no metadata, because its address cannot be listened on; trying on";
      logger.warn({ hostAddress, error: describeError(error) }, message);
    }
    clock.after(retryMs, () => void keepTrying(parts, hostAddress, wanted, true));
  }
}
