/** A full-screen picture that is drawn again and again; what was on the terminal before comes back when it closes. */
import type { Streams } from "./printer.ts";

const csi = "\u001b[";

export class Screen {
  readonly #out: Streams["stdout"];

  /** Lines that are too long are cut by the terminal, not wrapped. */
  constructor(out: Streams["stdout"]) {
    this.#out = out;
    this.#out.write(`${csi}?1049h${csi}?25l${csi}?7l`);
  }

  draw(lines: readonly string[]): void {
    const room = Math.max(1, (this.#out.rows || 24) - 1);
    const shown = lines.slice(0, room).map((line) => `${line}${csi}0m${csi}K\n`);
    this.#out.write(`${csi}H${shown.join("")}${csi}J`);
  }

  close(): void {
    this.#out.write(`${csi}?7h${csi}?25h${csi}?1049l`);
  }
}
