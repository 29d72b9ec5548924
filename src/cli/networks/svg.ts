/**
 * A network as a drawing: the outside, what is published, the network with its subnets and cards, its peerings, and who
 * may talk to whom. Pure: the same picture always gives the same bytes. Readable on light and dark ground.
 */

import type { CardPicture, NetworkPicture, PublishedPicture, SubnetPicture } from "./picture.ts";
import { drawParties } from "./svg-parties.ts";
import { box, colorOf, escapeXml, line, style, text, textWidth } from "./svg-shapes.ts";

const margin = 24;
const outsideWidth = 92;
const arrowWidth = 170;
const rowHeight = 30;
const laneHeight = 20;
const subnetHeader = 46;
const gap = 14;
const chipGap = 6;
/** Of one subnet; the others are counted. */
const maxCards = 60;

/** Where a card was drawn: the arrows from outside end there. */
interface Placed {
  shapes: string[];
  height: number;
}

interface Columns {
  address: number;
  groups: number;
  width: number;
}

export function drawNetwork(picture: NetworkPicture): string {
  const left = margin + outsideWidth + arrowWidth;
  const columns = columnsOf(picture);
  const top = 84;
  const inside = stacked(
    picture.subnets.map((subnet) => (y: number) => drawSubnet(picture, subnet, left + gap, y, columns)),
    top + 44,
  );
  const networkWidth = columns.width + 2 * gap;
  const networkHeight = Math.max(inside.height + 44, 120);
  const parties = drawParties(picture, left + networkWidth + 48, top);
  const peerings = drawPeerings(picture, left, top + networkHeight, networkWidth);
  const width = left + networkWidth + 48 + parties.width + margin;
  const height = top + Math.max(networkHeight + peerings.height, parties.height) + margin;
  const shapes = [
    text(margin, 40, `Network ${picture.name}`, "title"),
    text(margin, 62, titleLine(picture), "quiet"),
    box(left, top, networkWidth, networkHeight, "network"),
    text(left + gap, top + 26, `${picture.name}  ${picture.cidr}`, "strong"),
    ...drawOutside(picture, left, top, networkHeight),
    ...inside.shapes,
    ...peerings.shapes,
    ...parties.shapes,
  ];
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}" role="img" aria-label="${escapeXml(`Network ${picture.name}`)}">
<style>${style}</style>
<defs>${markers}</defs>
<rect class="ground" width="${width}" height="${height}"/>
${shapes.join("\n")}
</svg>
`;
}

const markers = ["good", "bad", "plain"]
  .map(
    (kind) =>
      `<marker id="${kind}" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" orient="auto"><path class="head-${kind}" d="M0 0L10 5L0 10z"/></marker>`,
  )
  .join("");

function titleLine(picture: NetworkPicture): string {
  return [picture.project, picture.ipv6Cidr ?? "", picture.domain, picture.state]
    .filter(Boolean)
    .join("  ·  ");
}

/** Draws one below the other from `y` on. */
function stacked(drawings: readonly ((y: number) => Placed)[], y: number): Placed {
  const shapes: string[] = [];
  let height = 0;
  for (const draw of drawings) {
    const placed = draw(y + height);
    shapes.push(...placed.shapes);
    height += placed.height + gap;
  }
  return { shapes, height };
}

/** Wide enough for the longest of each. */
function columnsOf({ subnets }: NetworkPicture): Columns {
  const cards = subnets.flatMap((subnet) => subnet.cards.slice(0, maxCards));
  const widest = (of: (card: CardPicture) => number) => Math.max(0, ...cards.map(of));
  const address = 44 + widest((card) => textWidth(card.title, 13));
  const groups = address + 20 + widest((card) => textWidth(addressesOf(card), 11));
  const chips = widest((card) =>
    groupsOf(card).reduce((width, group) => width + textWidth(group, 11) + 16 + chipGap, 0),
  );
  const headers = subnets.map((subnet) => textWidth(routesText(subnet), 11) + 2 * gap);
  return { address, groups, width: Math.max(360, groups + chips + gap, ...headers) };
}

function addressesOf({ ipAddress, ipv6Address }: CardPicture): string {
  return [ipAddress, ...(ipv6Address === undefined ? [] : [ipv6Address])].join("  ");
}

function groupsOf({ securityGroups }: CardPicture): readonly string[] {
  return securityGroups.length === 0 ? ["no group"] : securityGroups;
}

function routesText(subnet: SubnetPicture): string {
  return `routes${subnet.routeTable ? ` (${subnet.routeTable})` : ""}: ${subnet.routes.join(", ")}`;
}

function drawSubnet(
  picture: NetworkPicture,
  subnet: SubnetPicture,
  x: number,
  y: number,
  columns: Columns,
): Placed {
  const shown = subnet.cards.slice(0, maxCards);
  const rows = stackedRows(
    shown.map((card) => (at: number) => drawCard(picture, card, x, at, columns)),
    y + subnetHeader,
  );
  const hidden = subnet.cards.length - shown.length;
  const note = hidden > 0 ? `and ${hidden} more` : shown.length === 0 ? "no instances" : "";
  const height = subnetHeader + rows.height + (note ? 26 : 8);
  const shapes = [
    box(x, y, columns.width, height, "subnet"),
    text(x + gap, y + 21, `${subnet.name}  ${subnet.cidr}`, "strong"),
    text(x + gap, y + 37, routesText(subnet), "quiet"),
    ...rows.shapes,
    ...(note ? [text(x + gap, y + height - 9, note, "quiet")] : []),
  ];
  return { shapes, height };
}

function stackedRows(drawings: readonly ((y: number) => Placed)[], y: number): Placed {
  const shapes: string[] = [];
  let height = 0;
  for (const draw of drawings) {
    const placed = draw(y + height);
    shapes.push(...placed.shapes);
    height += placed.height;
  }
  return { shapes, height };
}

function drawCard(
  picture: NetworkPicture,
  card: CardPicture,
  x: number,
  y: number,
  columns: Columns,
): Placed {
  const published =
    card.title === card.instance ? picture.published.filter((one) => one.instance === card.instance) : [];
  const height = Math.max(rowHeight, published.length * laneHeight + 8);
  const middle = y + height / 2;
  const shapes = [
    box(x + 8, y + 2, columns.width - 16, height - 4, "card"),
    `<circle class="state-${stateClass(card.state)}" cx="${x + 24}" cy="${middle}" r="4"><title>${escapeXml(card.state)}</title></circle>`,
    text(x + 36, middle + 4, card.title, "name"),
    text(x + columns.address, middle + 4, addressesOf(card), "mono"),
  ];
  let chip = x + columns.groups;
  for (const group of groupsOf(card)) {
    const width = textWidth(group, 11) + 16;
    shapes.push(drawChip(picture, group, chip, middle - 9, width));
    chip += width + chipGap;
  }
  published.forEach((one, lane) => {
    const at = middle + (lane - (published.length - 1) / 2) * laneHeight;
    shapes.push(...drawArrow(one, margin + outsideWidth, x + 8, at));
  });
  return { shapes, height };
}

function drawChip(picture: NetworkPicture, group: string, x: number, y: number, width: number): string {
  const color = colorOf(picture, group);
  return `<rect x="${x}" y="${y}" width="${width}" height="18" rx="9" fill="${color}" fill-opacity="0.18" stroke="${color}"/>${text(x + 8, y + 13, group, "chip")}`;
}

function stateClass(state: string): string {
  return state === "running" ? "good" : state === "stopped" ? "dim" : "busy";
}

/** What is published; red and broken where the instance's groups let nothing in. */
function drawArrow(one: PublishedPicture, from: number, to: number, y: number): string[] {
  const open = one.allowed !== "";
  const label = one.type === "address" ? one.outer : `${one.outer} → ${one.port}`;
  const said = open ? (one.type === "address" ? `${label}: ${one.allowed}` : label) : `${label} closed`;
  const title = open
    ? `lets in ${one.allowed}`
    : `no rule of ${one.instance}'s security groups lets the outside in`;
  const short = said.length > 30 ? `${said.slice(0, 29)}…` : said;
  return [
    `<g><title>${escapeXml(`${label} leads to ${one.instance}: ${title}`)}</title>`,
    line(from, y, to, y, open ? "open" : "closed", open ? "good" : "bad"),
    text(from + 8, y - 4, short, "label"),
    "</g>",
  ];
}

function drawOutside(picture: NetworkPicture, left: number, top: number, height: number): string[] {
  const middle = margin + outsideWidth / 2;
  const shapes = [
    box(margin, top, outsideWidth, height, "outside"),
    text(middle, top + 26, "outside", "strong", "middle"),
  ];
  const leaves = picture.subnets.some((subnet) => subnet.routes.some((route) => route.endsWith("internet")));
  if (!leaves) return shapes;
  return [
    ...shapes,
    line(left, top + 21, margin + outsideWidth, top + 21, "plain", "plain"),
    text(left - 8, top + 16, "out, as the host", "label", "end"),
  ];
}

function drawPeerings(picture: NetworkPicture, left: number, y: number, width: number): Placed {
  if (picture.peerings.length === 0) return { shapes: [], height: 0 };
  const shapes: string[] = [];
  picture.peerings.forEach((peering, index) => {
    const top = y + 34 + index * 44;
    const active = peering.state === "active";
    const label = [`network ${peering.peer}`, peering.range ?? ""].filter(Boolean).join("  ");
    const boxWidth = Math.min(width, textWidth(label, 13) + 130);
    shapes.push(
      line(left + 24 + index * 6, y, left + 24 + index * 6, top, active ? "plain" : "closed"),
      box(left, top, boxWidth, 34, active ? "peer" : "peer waiting"),
      text(left + gap, top + 22, label, "name"),
      text(left + boxWidth - gap, top + 22, peering.state, "quiet", "end"),
    );
  });
  return { shapes, height: 34 + picture.peerings.length * 44 };
}
