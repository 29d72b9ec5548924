/**
 * A small and strict XML reader for descriptors from strangers: elements, attributes, text, comments, CDATA, the five
 * entities of XML itself and numeric references. No document type, so no entities to define or to expand, nothing that
 * is fetched; depth and number of elements are limited. What it does not know, it refuses. (XML 1.0, fifth edition;
 * namespaces are not resolved: names come without their prefix.)
 */
import { StrataError } from "../../../core/errors.ts";

export interface XmlElement {
  /** Without its prefix, like the names of attributes. */
  name: string;
  attributes: ReadonlyMap<string, string>;
  children: XmlElement[];
  /** All text directly within it, joined. */
  text: string;
}

const maxDepth = 64;
const maxElements = 20_000;
const maxAttributes = 64;

const namePattern = /[A-Za-z_][\w.-]*(?::[A-Za-z_][\w.-]*)?/y;
const entities: Record<string, string> = { lt: "<", gt: ">", amp: "&", quot: '"', apos: "'" };

/** @throws Invalid, naming the line. */
export function parseXml(text: string): XmlElement {
  return new XmlReader(text.replace(/^\uFEFF/, "")).document();
}

class XmlReader {
  readonly #text: string;
  #at = 0;
  #elements = 0;

  constructor(text: string) {
    this.#text = text;
  }

  document(): XmlElement {
    this.#skipDeclaration();
    this.#skipMisc();
    if (!this.#sees("<")) throw this.#problem("has no root element");
    const root = this.#element(1);
    this.#skipMisc();
    if (this.#at < this.#text.length) throw this.#problem("goes on after its root element");
    return root;
  }

  #element(depth: number): XmlElement {
    if (depth > maxDepth) throw this.#problem(`is nested deeper than ${maxDepth} elements`);
    if (++this.#elements > maxElements) throw this.#problem(`has more than ${maxElements} elements`);
    this.#expect("<");
    const fullName = this.#name();
    const attributes = this.#attributes();
    const element: XmlElement = { name: local(fullName), attributes, children: [], text: "" };
    if (this.#takes("/>")) return element;
    this.#expect(">");
    const texts: string[] = [];
    for (;;) {
      texts.push(this.#characters());
      if (this.#takes("</")) break;
      if (this.#takes("<!--")) this.#skipUntil("-->");
      else if (this.#takes("<![CDATA[")) texts.push(this.#skipUntil("]]>"));
      else if (this.#sees("<!") || this.#sees("<?") || !this.#sees("<"))
        throw this.#problem("has markup that is not read here");
      else element.children.push(this.#element(depth + 1));
    }
    if (this.#name() !== fullName) throw this.#problem(`does not close "${fullName.slice(0, 60)}"`);
    this.#skipSpace();
    this.#expect(">");
    element.text = texts.join("").trim();
    return element;
  }

  #attributes(): Map<string, string> {
    const attributes = new Map<string, string>();
    const seen = new Set<string>();
    for (;;) {
      const spaced = this.#skipSpace();
      if (this.#sees(">") || this.#sees("/>")) return attributes;
      if (!spaced) throw this.#problem("has no space before an attribute");
      const name = this.#name();
      if (seen.has(name)) throw this.#problem(`has the attribute "${name.slice(0, 60)}" twice`);
      seen.add(name);
      if (seen.size > maxAttributes)
        throw this.#problem(`has more than ${maxAttributes} attributes at one element`);
      this.#skipSpace();
      this.#expect("=");
      this.#skipSpace();
      const quote = this.#takes('"') ? '"' : this.#takes("'") ? "'" : undefined;
      if (quote === undefined) throw this.#problem("has an attribute without quotes");
      const raw = this.#skipUntil(quote);
      if (raw.includes("<")) throw this.#problem("has a < within an attribute");
      if (!name.startsWith("xmlns")) attributes.set(local(name), this.#decode(raw));
    }
  }

  #characters(): string {
    const next = this.#text.indexOf("<", this.#at);
    if (next < 0) throw this.#problem("ends within an element");
    const raw = this.#text.slice(this.#at, next);
    const decoded = this.#decode(raw);
    this.#at = next;
    return decoded;
  }

  #decode(raw: string): string {
    return raw.replace(/&([^;&]{0,12};?)/g, (_, reference: string) => {
      const name = reference.endsWith(";") ? reference.slice(0, -1) : "";
      const number = /^#(?:x([0-9a-fA-F]{1,6})|([0-9]{1,7}))$/.exec(name);
      const code = number && Number.parseInt(number[1] ?? number[2] ?? "", number[1] ? 16 : 10);
      const text = code ? codePoint(code) : Object.hasOwn(entities, name) ? entities[name] : undefined;
      if (text === undefined)
        throw this.#problem(`has the entity "&${name}", which is not defined in XML itself`);
      return text;
    });
  }

  #skipDeclaration(): void {
    if (this.#takes("<?xml ")) this.#skipUntil("?>");
  }

  #skipMisc(): void {
    for (;;) {
      this.#skipSpace();
      if (this.#sees("<!DOCTYPE")) throw this.#problem("has a document type, which is not read here");
      if (!this.#takes("<!--")) return;
      this.#skipUntil("-->");
    }
  }

  #name(): string {
    namePattern.lastIndex = this.#at;
    const name = namePattern.exec(this.#text)?.[0];
    if (name === undefined) throw this.#problem("has no name where one belongs");
    this.#at += name.length;
    return name;
  }

  #skipSpace(): boolean {
    const start = this.#at;
    while (/^[ \t\r\n]$/.test(this.#text[this.#at] ?? "")) this.#at++;
    return this.#at > start;
  }

  #skipUntil(mark: string): string {
    const end = this.#text.indexOf(mark, this.#at);
    if (end < 0) throw this.#problem(`has no ${mark} where one belongs`);
    const skipped = this.#text.slice(this.#at, end);
    this.#at = end + mark.length;
    return skipped;
  }

  #sees(mark: string): boolean {
    return this.#text.startsWith(mark, this.#at);
  }

  #takes(mark: string): boolean {
    if (!this.#sees(mark)) return false;
    this.#at += mark.length;
    return true;
  }

  #expect(mark: string): void {
    if (!this.#takes(mark)) throw this.#problem(`has no ${mark} where one belongs`);
  }

  #problem(what: string): StrataError {
    const line = this.#text.slice(0, this.#at).split("\n").length;
    return new StrataError("Invalid", `the XML document ${what} (line ${line})`);
  }
}

function local(name: string): string {
  return name.slice(name.indexOf(":") + 1);
}

function codePoint(code: number): string | undefined {
  const surrogate = code >= 0xd800 && code <= 0xdfff;
  return code <= 0x10ffff && !surrogate ? String.fromCodePoint(code) : undefined;
}
