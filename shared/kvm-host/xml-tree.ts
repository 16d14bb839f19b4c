import { XMLParser } from "fast-xml-parser";
import { Failure } from "../domain/failure.ts";

/**
 * An XML document as a tree that prints back to what it was: order, comments and unknown elements stay.
 * Text and attribute values are kept as written (escaped) inside, so that a document passes through unharmed;
 * `attribute` and `textOf` decode. Documents come from hypervisors and backups: they are bounded, and a DOCTYPE is refused.
 */
export type XmlElement = {
  readonly name: string;
  /** Values as written, escaped. */
  attributes: Record<string, string>;
  children: XmlNode[];
};
export type XmlNode =
  | XmlElement
  | { readonly text: string }
  | { readonly comment: string }
  | { readonly cdata: string };

const xmlCharactersMax = 4 * 1024 * 1024;
const depthMax = 64;
const parser = new XMLParser({
  preserveOrder: true,
  ignoreAttributes: false,
  attributeNamePrefix: "",
  trimValues: false,
  parseTagValue: false,
  parseAttributeValue: false,
  processEntities: false,
  commentPropName: "#comment",
  cdataPropName: "#cdata",
  ignoreDeclaration: true,
  ignorePiTags: true,
});

/** Fails with `host.output-invalid`. */
export function parseXml(text: string): XmlElement {
  if (text.length > xmlCharactersMax) {
    throw invalid(`an XML document of ${text.length} characters is over the limit`);
  }
  if (/<!(DOCTYPE|ENTITY)/i.test(text)) throw invalid("an XML document with a DOCTYPE is refused");
  let parsed: unknown;
  try {
    parsed = parser.parse(text, true);
  } catch (error) {
    throw new Failure("host.output-invalid", { message: "not an XML document", cause: error });
  }
  const roots = toNodes(parsed, 0).filter(isElement);
  const [root] = roots;
  if (root === undefined || roots.length !== 1) throw invalid("an XML document has no single root");
  return root;
}

export function printXml(element: XmlElement): string {
  const attributes = Object.entries(element.attributes)
    .map(([name, value]) => ` ${name}="${value.replaceAll('"', "&quot;")}"`)
    .join("");
  if (element.children.length === 0) return `<${element.name}${attributes}/>`;
  const inside = element.children.map(printNode).join("");
  return `<${element.name}${attributes}>${inside}</${element.name}>`;
}

function printNode(node: XmlNode): string {
  if ("name" in node) return printXml(node);
  if ("text" in node) return node.text;
  if ("comment" in node) return `<!--${node.comment}-->`;
  return `<![CDATA[${node.cdata}]]>`;
}

export function isElement(node: XmlNode): node is XmlElement {
  return "name" in node;
}

export function childrenOf(element: XmlElement | undefined, name: string): readonly XmlElement[] {
  return (element?.children ?? []).filter(isElement).filter((child) => child.name === name);
}

/** The first element on a path of names below this one. */
export function find(
  element: XmlElement | undefined,
  ...path: readonly string[]
): XmlElement | undefined {
  let current = element;
  for (const name of path) current = childrenOf(current, name)[0];
  return current;
}

export function attribute(element: XmlElement | undefined, name: string): string | undefined {
  const value =
    element !== undefined && Object.hasOwn(element.attributes, name)
      ? element.attributes[name]
      : undefined;
  return value === undefined ? undefined : decode(value);
}

export function textOf(element: XmlElement | undefined): string | undefined {
  if (element === undefined) return undefined;
  const parts = element.children.map((child) => {
    if ("text" in child) return decode(child.text);
    return "cdata" in child ? child.cdata : "";
  });
  return parts.join("").trim();
}

export function newElement(
  name: string,
  attributes: Readonly<Record<string, string>> = {},
  children: readonly (XmlElement | string)[] = [],
): XmlElement {
  const encoded = Object.entries(attributes).map(([key, value]) => [key, encode(value)]);
  return {
    name,
    attributes: Object.fromEntries(encoded),
    children: children.map((child) =>
      typeof child === "string" ? { text: encode(child) } : child,
    ),
  };
}

export function setAttribute(element: XmlElement, name: string, value: string): void {
  element.attributes[name] = encode(value);
}

export function removeAttributes(element: XmlElement, ...names: readonly string[]): void {
  const kept = Object.entries(element.attributes).filter(([name]) => !names.includes(name));
  element.attributes = Object.fromEntries(kept);
}

export function setText(element: XmlElement, text: string): void {
  element.children = [{ text: encode(text) }];
}

export function removeChildren(element: XmlElement, ...names: readonly string[]): void {
  element.children = element.children.filter(
    (child) => !(isElement(child) && names.includes(child.name)),
  );
}

const namedEntities: Readonly<Record<string, string>> = {
  amp: "&",
  lt: "<",
  gt: ">",
  quot: '"',
  apos: "'",
};

function decode(text: string): string {
  return text.replace(/&(#x[0-9a-f]{1,6}|#[0-9]{1,7}|[a-z]{2,4});/gi, (whole, name: string) => {
    if (!name.startsWith("#")) return namedEntities[name] ?? whole;
    const hexadecimal = name[1] === "x" || name[1] === "X";
    const code = hexadecimal ? Number.parseInt(name.slice(2), 16) : Number(name.slice(1));
    return code > 0 && code <= 0x10ffff ? String.fromCodePoint(code) : whole;
  });
}

function encode(text: string): string {
  return text
    .replaceAll("&", "&amp;")
    .replaceAll("<", "&lt;")
    .replaceAll(">", "&gt;")
    .replaceAll('"', "&quot;")
    .replaceAll("'", "&apos;");
}

function toNodes(parsed: unknown, depth: number): XmlNode[] {
  if (depth > depthMax) throw invalid("an XML document is nested too deeply");
  if (!Array.isArray(parsed)) throw invalid("an XML document has an unexpected shape");
  const nodes: XmlNode[] = [];
  for (const item of parsed as Record<string, unknown>[]) {
    for (const [name, value] of Object.entries(item)) {
      if (name === ":@") continue;
      if (name === "#text") nodes.push({ text: String(value) });
      else if (name === "#comment") nodes.push({ comment: innerText(value) });
      else if (name === "#cdata") nodes.push({ cdata: innerText(value) });
      else {
        const attributes = Object.entries((item[":@"] ?? {}) as Record<string, unknown>);
        nodes.push({
          name,
          attributes: Object.fromEntries(attributes.map(([key, text]) => [key, String(text)])),
          children: toNodes(value, depth + 1),
        });
      }
    }
  }
  return nodes;
}

function innerText(value: unknown): string {
  const [first] = Array.isArray(value) ? (value as Record<string, unknown>[]) : [];
  return String(first?.["#text"] ?? "");
}

function invalid(message: string): Failure {
  return new Failure("host.output-invalid", { message });
}
