/** A network on the terminal. Pure. */
import type { Branch, Cell, Tone } from "../output.ts";
import { addressText } from "./cards.ts";
import type { CardPicture, NetworkPicture, PublishedPicture, SubnetPicture } from "./picture.ts";

export function networkTree(picture: NetworkPicture): Branch[] {
  const { name, cidr, ipv6Cidr, domain, state, message } = picture;
  const published = picture.published.map(publishedBranch);
  const peerings = picture.peerings.map(({ name: title, peer, state: seen, range, message: why }) => ({
    label: title,
    value: toned([`with ${peer}`, range ?? "", seen, why].filter(Boolean).join("  "), seen === "active"),
  }));
  return [
    { label: `network ${name}`, value: toned(message ? `${state}: ${message}` : state, state === "ready") },
    {
      label: "",
      children: [
        {
          label: "range",
          value: addressText({ ipAddress: cidr, ...(ipv6Cidr ? { ipv6Address: ipv6Cidr } : {}) }),
        },
        { label: "domain", value: domain },
        {
          label: "outside",
          value: picture.internet ? "by the host, behind its address" : "no way of its own",
        },
        {
          label: "from the host",
          value: fromHost(picture),
        },
      ],
    },
    ...picture.subnets.map(subnetBranch),
    ...(published.length > 0 ? [{ label: "published", children: published }] : []),
    ...(peerings.length > 0 ? [{ label: "peerings", children: peerings }] : []),
    ...matrixBranches(picture),
  ].flatMap((branch) => (branch.label === "" ? (branch.children ?? []) : [branch]));
}

function fromHost({ hostRoute, hostAddresses }: NetworkPicture): string {
  const addresses = Object.values(hostAddresses).join(", ");
  if (hostRoute) return "by its own routes";
  return addresses ? `by sending from ${addresses}` : "once an instance runs";
}

function subnetBranch(subnet: SubnetPicture): Branch {
  const { name, cidr, ipv6Cidr, gateway, routeTable, routes, cards } = subnet;
  const range = addressText({ ipAddress: cidr, ...(ipv6Cidr ? { ipv6Address: ipv6Cidr } : {}) });
  const width = (of: (card: CardPicture) => string) => Math.max(0, ...cards.map((card) => of(card).length));
  const widths = [
    width((card) => card.title),
    width((card) => addressText(card)),
    width((card) => card.type),
  ];
  return {
    label: `subnet ${name}  ${range}${gateway ? `  gateway ${gateway}` : ""}`,
    children: [
      { label: routeTable ? `routes (${routeTable})` : "routes", value: routes.join(", ") },
      ...cards.map((card) => cardBranch(card, widths)),
      ...(cards.length === 0 ? [{ label: "no instances" }] : []),
    ],
  };
}

const tones: Readonly<Record<string, Tone>> = {
  running: "good",
  stopped: "dim",
  failed: "bad",
  backoff: "bad",
};

function cardBranch(card: CardPicture, [title = 0, address = 0, type = 0]: readonly number[]): Branch {
  const groups = card.securityGroups.join(", ") || "no security group";
  const text = `${addressText(card).padEnd(address)}  ${card.type.padEnd(type)}  ${card.state.padEnd(8)}  [${groups}]`;
  return { label: card.title.padEnd(title), value: { text, tone: tones[card.state] ?? "busy" } };
}

function publishedBranch(one: PublishedPicture): Branch {
  const target = one.port === undefined ? one.instance : `${one.instance}:${one.port}`;
  const allowed = one.allowed || `nothing: no rule of ${one.instance}'s security groups lets the outside in`;
  return {
    label: one.type === "address" ? `address ${one.outer} (${one.name})` : `port ${one.outer}`,
    value: toned(`→ ${target}  ${one.state}  lets in ${allowed}`, one.allowed !== ""),
  };
}

/** Rows talk to columns. */
function matrixBranches({ parties, permitted, subnets }: NetworkPicture): Branch[] {
  if (subnets.every((subnet) => subnet.cards.length === 0)) return [];
  const rows = [
    ["from \\ to", ...parties],
    ...parties.map((party, index) => [party, ...(permitted[index] ?? []).map((text) => text || "-")]),
  ];
  const widths = parties
    .concat("")
    .map((_, column) => Math.max(...rows.map((row) => row[column]?.length ?? 0)));
  const lines = rows.map((row) =>
    row
      .map((text, column) => text.padEnd(widths[column] ?? 0))
      .join("  ")
      .trimEnd(),
  );
  return [
    {
      label: "who may talk to whom, by security group (new connections; answers always pass)",
      children: lines.map((label) => ({ label })),
    },
  ];
}

function toned(text: string, good: boolean): Cell {
  return { text, tone: good ? "good" : "busy" };
}
