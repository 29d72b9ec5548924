import type { Image } from "../../kinds/image.ts";
import { type InstanceState, wantsRebuild } from "../../kinds/instance.ts";
import type { Network } from "../../kinds/network.ts";
import type { Volume } from "../../kinds/volume.ts";
import type { InstanceWorld } from "./world.ts";

/** What must be there before a guest can be made: all of it, or the first thing that is missing. */
export type Gate =
  | {
      open: true;
      network: Network;
      volume: Volume;
      imageDigest: string;
      driver: string;
      publicKeys: readonly string[];
    }
  | { open: false; state: Extract<InstanceState, "pending" | "failed">; reason: string; message: string };

/** Reasons of instances that fail for something outside of them: they go on by themselves once it is mended. */
export const outsideReasons: ReadonlySet<string> = new Set(["ImageFailed", "ImageUnfit"]);

export function openGate(world: InstanceWorld): Gate {
  const { instance, network, subnet, volume, driver } = world;
  if (!instance) return pending("NoInstance", "there is no such instance");
  const image = imageGate(world);
  if (!("imageDigest" in image)) return image;
  const { spec, status } = instance;
  if (!status.nic) return pending("NoAddress", "waiting for an address on its network");
  if (!network?.status.cidr || network.metadata.deletedAt) {
    return pending("NetworkNotReady", `waiting for the network "${spec.network}" to have a range`);
  }
  if (!subnet?.status.gateway) {
    return pending("SubnetNotReady", `waiting for the subnet "${status.nic.subnet}" to have a range`);
  }
  const [card] = world.unclaimedCards;
  if (card !== undefined) return pending("CardNotReady", `waiting for the network interface "${card}"`);
  const [wanted] = world.unclaimedVolumes;
  if (wanted !== undefined) return pending("VolumeNotReady", `waiting for the volume "${wanted}"`);
  if (!volume) return pending("VolumeNotReady", "waiting for its root volume");
  const publicKeys: string[] = [];
  for (const name of spec.keyPairs) {
    const key = world.publicKeys.get(name);
    if (key === undefined) {
      const message = `waiting for the key pair "${name}", which does not exist in this project; create it`;
      return pending("KeyPairMissing", message);
    }
    publicKeys.push(key);
  }
  if ("missing" in driver) return pending("NoDriver", driver.missing);
  return { open: true, network, volume, imageDigest: image.imageDigest, driver: driver.name, publicKeys };
}

/**
 * The content the root disk is made from: recorded once, then it does not matter what becomes of the image, until the
 * root is to be made anew.
 */
export function imageGate(world: InstanceWorld): Gate | { imageDigest: string } {
  const { instance, image, hostName } = world;
  if (!instance) return pending("NoInstance", "there is no such instance");
  const { spec, status } = instance;
  if (status.imageDigest !== undefined && !wantsRebuild(instance)) return { imageDigest: status.imageDigest };
  if (!image || image.metadata.deletedAt) {
    const message = `waiting for the image "${spec.image}", which does not exist in this project; create it`;
    return pending("ImageMissing", message);
  }
  if (image.status.state === "failed") {
    const message = `the image "${spec.image}" failed: ${image.status.message}`;
    return { open: false, state: "failed", reason: "ImageFailed", message };
  }
  const { digest } = image.status;
  if (image.status.state !== "ready" || digest === undefined) {
    return pending("ImageNotReady", `waiting for the image "${spec.image}" to be made`);
  }
  if (!image.status.types.includes(spec.type)) return unfit(image, spec.type);
  if (image.status.host !== undefined && image.status.host !== hostName) {
    const message = `the image "${spec.image}" was made on host ${image.status.host} and is not on ${hostName}; delete the instance and create it anew`;
    return pending("ImageElsewhere", message);
  }
  return { imageDigest: digest };
}

function unfit(image: Image, type: "vm" | "container"): Gate {
  const able = image.status.types.join(" and ") || "nothing";
  const message = `the image "${image.metadata.name}" can start as ${able}, not as ${type}; use another image or another type`;
  return { open: false, state: "failed", reason: "ImageUnfit", message };
}

function pending(reason: string, message: string): Gate {
  return { open: false, state: "pending", reason, message };
}
