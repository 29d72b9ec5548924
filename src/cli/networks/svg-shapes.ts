/** The few shapes of a drawing, as text. Everything that a resource says is escaped. */
import type { NetworkPicture } from "./picture.ts";

const light = `
.ground{fill:#ffffff}text{fill:#1c2430;font:13px system-ui,"Segoe UI",Helvetica,Arial,sans-serif}
.title{font-size:20px;font-weight:600}.strong{font-weight:600}.quiet{fill:#5b6675;font-size:11px}
.mono{font:11px ui-monospace,Menlo,Consolas,"DejaVu Sans Mono",monospace;fill:#3a4553}.label,.chip{font-size:11px}
.network{fill:#f5f8fc;stroke:#7d93ad}.subnet{fill:#e9f0f8;stroke:#b3c3d6}.card{fill:#ffffff;stroke:#d3dce6}
.outside{fill:#f3f1ea;stroke:#b9b19b}.peer{fill:#f1edf8;stroke:#a394c2}.waiting{stroke-dasharray:5 4}
.party{fill:#ffffff;stroke-width:1.6}.plate{fill:#ffffff}
.state-good{fill:#1f9d55}.state-dim{fill:#9aa5b1}.state-busy{fill:#d9931c}
.line{fill:none;stroke-width:1.5}.open{stroke:#1f9d55}.closed{stroke:#cc3d3d;stroke-dasharray:5 4}.plain{stroke:#6b7a8c}
.head-good{fill:#1f9d55}.head-bad{fill:#cc3d3d}.head-plain{fill:#6b7a8c}`;

const dark = `
.ground{fill:#12161c}text{fill:#e4e9f0}.quiet{fill:#98a4b3}.mono{fill:#c3ccd8}
.network{fill:#181f29;stroke:#56708f}.subnet{fill:#1f2936;stroke:#3b4d63}.card{fill:#161c25;stroke:#33404f}
.outside{fill:#24211a;stroke:#6f6751}.peer{fill:#221d30;stroke:#75669a}.party{fill:#161c25}.plate{fill:#12161c}`;

export const style = `${light}
@media (prefers-color-scheme:dark){${dark}
}
`;

export function escapeXml(value: string): string {
  return value
    .replace(/[^\t\n\r\u0020-\uD7FF\uE000-\uFFFD]/g, " ")
    .replaceAll("&", "&amp;")
    .replaceAll("<", "&lt;")
    .replaceAll(">", "&gt;")
    .replaceAll('"', "&quot;");
}

export function text(x: number, y: number, value: string, kind: string, anchor?: "middle" | "end"): string {
  const anchored = anchor === undefined ? "" : ` text-anchor="${anchor}"`;
  return `<text class="${kind}" x="${round(x)}" y="${round(y)}"${anchored}>${escapeXml(value)}</text>`;
}

export function box(x: number, y: number, width: number, height: number, kind: string): string {
  return `<rect class="${kind}" x="${round(x)}" y="${round(y)}" width="${round(width)}" height="${round(height)}" rx="8"/>`;
}

export function line(x1: number, y1: number, x2: number, y2: number, kind: string, head?: string): string {
  return path(`M${round(x1)} ${round(y1)}L${round(x2)} ${round(y2)}`, kind, head);
}

export function path(d: string, kind: string, head?: string): string {
  const arrow = head === undefined ? "" : ` marker-end="url(#${head})"`;
  return `<path class="line ${kind}" d="${d}"${arrow}/>`;
}

/** About; fonts differ. */
export function textWidth(value: string, fontSize: number): number {
  return Math.ceil(value.length * fontSize * 0.62);
}

export function round(value: number): number {
  return Math.round(value * 10) / 10;
}

/** Distinct on both grounds. */
const colors = ["#2f7de1", "#d9702b", "#2f9e6e", "#a04fd0", "#c2417c", "#8a8f1d", "#2a9db0", "#8d6a4a"];

/** The same group has the same colour all over a drawing. */
export function colorOf(picture: NetworkPicture, group: string): string {
  const groups = [
    ...new Set(picture.subnets.flatMap((subnet) => subnet.cards.flatMap((card) => card.securityGroups))),
  ].sort();
  const index = groups.indexOf(group);
  return index < 0 ? "#7b8794" : (colors[index % colors.length] ?? "#7b8794");
}
