import fc from "fast-check";
import { expect, test } from "vitest";
import { attribute, find, newElement, parseXml, printXml, textOf } from "./xml-tree.ts";

test("a document prints back to what it was", () => {
  const xml =
    '<domain type=\'kvm\' xmlns:q="u"><!-- a < b --><name>a &amp; b</name>\n  <q:arg v="1 &lt; 2 &#x41;"/><x><![CDATA[<&]]></x></domain>';
  expect(printXml(parseXml(xml))).toBe(xml.replace("'kvm'", '"kvm"'));
});

test("text and attributes of any content survive", () => {
  const printable = fc.string({ unit: "grapheme-ascii", maxLength: 40 });
  fc.assert(
    fc.property(printable, printable, (value, text) => {
      const parsed = parseXml(
        printXml(newElement("a", {}, [newElement("b", { c: value }, [text])])),
      );
      expect(attribute(find(parsed, "b"), "c")).toBe(value);
      expect(textOf(find(parsed, "b"))).toBe(text.trim());
    }),
  );
});

test.each([
  ["a DOCTYPE", '<!DOCTYPE a [<!ENTITY x "y">]><a>&x;</a>'],
  ["no XML", "error: failed"],
  ["an open element", "<a><b></a>"],
  ["two roots", "<a/><b/>"],
  ["too deep", `${"<a>".repeat(100)}${"</a>".repeat(100)}`],
])("%s is refused", (_name, xml) => {
  expect(() => parseXml(xml)).toThrow(expect.objectContaining({ code: "host.output-invalid" }));
});
