import type { NetworkPicture } from "./picture.ts";

export function drawNetwork(picture: NetworkPicture): string {
  return `<svg xmlns="http://www.w3.org/2000/svg"><text>${picture.name}</text></svg>`;
}
