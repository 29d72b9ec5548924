/**
 * Who may talk to whom, as arcs: parties stand one below the other; arcs on the right lead down, arcs on the left up. With
 * many parties it is a list instead.
 */

import type { NetworkPicture } from "./picture.ts";
import { box, colorOf, escapeXml, path, round, text, textWidth } from "./svg-shapes.ts";

const maxDrawn = 9;
const maxListed = 60;
const pitch = 78;
const nodeHeight = 40;
const header = 44;

export interface PartiesDrawing {
  shapes: string[];
  width: number;
  height: number;
}

interface Talk {
  from: number;
  to: number;
  what: string;
}

export function drawParties(picture: NetworkPicture, x: number, y: number): PartiesDrawing {
  const talks = picture.permitted.flatMap((row, from) =>
    row.flatMap((what, to): Talk[] => (what === "" || from === to ? [] : [{ from, to, what }])),
  );
  const heading = [
    text(x, y + 10, "Who may talk to whom", "strong"),
    text(x, y + 27, "new connections; answers always pass", "quiet"),
  ];
  const drawing =
    picture.parties.length > maxDrawn
      ? listed(picture, talks, x, y + header)
      : arcs(picture, talks, x, y + header);
  return {
    shapes: [...heading, ...drawing.shapes],
    width: Math.max(drawing.width, 250),
    height: drawing.height + header,
  };
}

function listed(picture: NetworkPicture, talks: readonly Talk[], x: number, y: number): PartiesDrawing {
  const lines = talks
    .slice(0, maxListed)
    .map(({ from, to, what }) => `${picture.parties[from]} → ${picture.parties[to]}: ${what}`);
  if (talks.length > maxListed) lines.push(`and ${talks.length - maxListed} more`);
  return {
    shapes: lines.map((value, index) => text(x, y + 12 + index * 18, value, "label")),
    width: Math.max(0, ...lines.map((value) => textWidth(value, 11))),
    height: lines.length * 18 + 12,
  };
}

/** How far an arc over `span` parties goes to the side. */
function reachOf(span: number): number {
  return 20 + span * 66;
}

function arcs(picture: NetworkPicture, talks: readonly Talk[], x: number, y: number): PartiesDrawing {
  const { parties, permitted } = picture;
  const nodeWidth = Math.max(
    120,
    ...parties.map((party) => textWidth(party, 13) + 28),
    ...parties.map((_, index) => textWidth(ownText(permitted[index]?.[index]), 11) + 28),
  );
  const extent = (upward: boolean) =>
    Math.max(
      0,
      ...talks
        .filter(({ from, to }) => to < from === upward)
        .map(
          ({ from, to, what }) =>
            reachOf(Math.abs(to - from)) * 0.75 + textWidth(shortened(what), 11) / 2 + 8,
        ),
    );
  const left = x + extent(true);
  const middleOf = (index: number) => y + index * pitch + nodeHeight / 2;
  const drawn = talks.map((talk) => arc(talk, left, nodeWidth, middleOf, parties));
  const nodes = parties.flatMap((party, index) => {
    const top = y + index * pitch;
    const own = ownText(permitted[index]?.[index]);
    const color = colorOf(picture, party);
    return [
      `<rect class="party" x="${round(left)}" y="${top}" width="${nodeWidth}" height="${nodeHeight}" rx="8" stroke="${color}"/>`,
      text(left + nodeWidth / 2, top + (own ? 17 : 25), party, "name", "middle"),
      ...(own ? [text(left + nodeWidth / 2, top + 32, own, "quiet", "middle")] : []),
    ];
  });
  return {
    shapes: [...drawn.map(({ curve }) => curve), ...nodes, ...drawn.flatMap(({ label }) => label)],
    width: extent(true) + nodeWidth + extent(false),
    height: parties.length * pitch,
  };
}

function arc(
  { from, to, what }: Talk,
  left: number,
  nodeWidth: number,
  middleOf: (index: number) => number,
  parties: readonly string[],
): { curve: string; label: string[] } {
  const down = to > from;
  const side = down ? 1 : -1;
  const edge = down ? left + nodeWidth : left;
  const reach = reachOf(Math.abs(to - from));
  const start = middleOf(from) + side * 7;
  const end = middleOf(to) - side * 7;
  const control = edge + side * reach;
  const curve = path(
    `M${round(edge)} ${start}C${round(control)} ${start} ${round(control)} ${end} ${round(edge)} ${end}`,
    "open",
    "good",
  );
  const value = shortened(what);
  const width = textWidth(value, 11) + 8;
  // A cubic curve's middle is three quarters of the way to its control points.
  const x = edge + side * reach * 0.75;
  const y = (start + end) / 2;
  const title = `<title>${escapeXml(`${parties[from]} to ${parties[to]}: ${what}`)}</title>`;
  return {
    curve,
    label: [
      `<g>${title}${box(x - width / 2, y - 9, width, 18, "plate")}${text(x, y + 4, value, "label", "middle")}</g>`,
    ],
  };
}

function ownText(what: string | undefined): string {
  return what ? `among themselves: ${shortened(what)}` : "";
}

const longest = 24;

function shortened(what: string): string {
  return what.length > longest ? `${what.slice(0, longest - 1)}…` : what;
}
