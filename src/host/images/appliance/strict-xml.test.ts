import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { StrataError } from "../../../core/errors.ts";
import { parseXml } from "./strict-xml.ts";

describe("strict XML", () => {
  it("reads elements, attributes, text and references", () => {
    const text = `\uFEFF<?xml version="1.0" encoding="UTF-8"?>
<!-- a comment --> <o:a xmlns:o="urn:x" o:one="1 &lt; 2" two='&#x41;&#66;'>text &amp; more<b/><![CDATA[<raw>]]><c> x </c></o:a>
<!-- the end -->`;
    const root = parseXml(text);
    expect(root.name).toBe("a");
    expect([...root.attributes]).toEqual([
      ["one", "1 < 2"],
      ["two", "AB"],
    ]);
    expect(root.text).toBe("text & more<raw>");
    expect(root.children.map(({ name, text: inner }) => [name, inner])).toEqual([
      ["b", ""],
      ["c", "x"],
    ]);
  });

  it.each<[string, string, RegExp]>([
    [
      "a bomb of entities",
      '<!DOCTYPE a [<!ENTITY x "xxxxxxxx"><!ENTITY y "&x;&x;&x;">]><a>&y;</a>',
      /document type.*\(line 1\)/,
    ],
    [
      "an entity from a file",
      '<?xml version="1.0"?>\n<!DOCTYPE a SYSTEM "file:///etc/passwd"><a/>',
      /document type.*\(line 2\)/,
    ],
    ["an unknown entity", "<a>&passwd;</a>", /entity "&passwd", which is not defined/],
    ["an entity without end", "<a>& </a>", /entity/],
    ["a processing instruction", "<a><?php x?></a>", /not read here/],
    ["depth", "<a>".repeat(70) + "</a>".repeat(70), /nested deeper than 64/],
    ["breadth", `<a>${"<b/>".repeat(20_001)}</a>`, /more than 20000 elements/],
    ["an end that is missing", "<a><b></a></b>", /does not close "b"/],
    ["nothing", "", /no root element/],
    ["two roots", "<a/><b/>", /goes on/],
    ["an attribute twice", '<a b="1" b="2"/>', /twice/],
    ["an attribute without quotes", "<a b=1/>", /without quotes/],
  ])("refuses %s", (_what, text, message) => {
    expect(() => parseXml(text)).toThrow(message);
  });

  it("ends with a document or one error, whatever it reads", () => {
    const piece = fc.constantFrom(
      "<a>",
      "</a>",
      "<b/>",
      "&lt;",
      "&",
      "<!--",
      "-->",
      "<![CDATA[",
      "]]>",
      ' c="',
      '"',
      "x",
      "<",
      "\n",
    );
    fc.assert(
      fc.property(fc.array(piece, { maxLength: 30 }), (pieces) => {
        try {
          expect(parseXml(pieces.join("")).name).toMatch(/^[ab]$/);
        } catch (error) {
          expect(error).toBeInstanceOf(StrataError);
        }
      }),
      { numRuns: 500 },
    );
  });
});
