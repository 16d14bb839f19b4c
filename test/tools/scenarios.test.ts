import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";

/** docs/scenarios.md says which test proves what: it may not name a test that is gone. */
const root = join(import.meta.dirname, "../..");

type Row = {
  readonly id: string;
  readonly defends: readonly string[];
  readonly proofs: readonly { readonly file: string; readonly name: string }[];
  readonly open: string;
};

const rule = (from: number, to: number): string[] => range("rule ", from, to, 1);
const range = (letter: string, from: number, to: number, digits = 2): string[] =>
  Array.from(
    { length: to - from + 1 },
    (_, at) => letter + String(from + at).padStart(digits, "0"),
  );
/** What issue 3 is judged by. */
const asked = [
  ...["rule 1", ...rule(3, 11), ...rule(15, 16)],
  ...["R02", "R10", ...range("R", 22, 41)],
  ...["T01", ...range("T", 3, 7), "T22", "T26"],
];

function parse(text: string): readonly Row[] {
  return text
    .split("\n")
    .filter((line) => /^\| (rule |R|T)\d/.test(line))
    .map((line) => {
      const [, id = "", defends = "", proofs = "", open = ""] = line
        .split(" | ")
        .flatMap((cell, at) => (at === 0 ? ["", cell.slice(2)] : [cell.replace(/ \|$/, "")]));
      return {
        id: /^(rule )?\w+/.exec(id)?.[0] ?? "",
        defends: Array.from(defends.matchAll(/`([^`]+)`/g), ([, file = ""]) => file),
        proofs: Array.from(proofs.matchAll(/`([^`]+)` "([^"]+)"/g), ([, file = "", name = ""]) => ({
          file,
          name,
        })),
        open,
      };
    });
}

function wrongIn(rows: readonly Row[]): readonly string[] {
  const wrong: string[] = [];
  for (const { id, defends, proofs, open } of rows) {
    for (const file of defends) if (!existsSync(join(root, file))) wrong.push(`${id}: no ${file}`);
    if (proofs.length === 0 && !open.includes("no test")) wrong.push(`${id}: no proof`);
    for (const { file, name } of proofs) {
      const text = existsSync(join(root, file)) ? readFileSync(join(root, file), "utf8") : "";
      const isThere = [`"${name}"`, `\`${name}\``].some((quoted) => text.includes(quoted));
      if (!isThere) wrong.push(`${id}: ${file} has no "${name}"`);
    }
  }
  return wrong;
}

test("every rule, scenario and threat has its row, and every test that one names exists", () => {
  const rows = parse(readFileSync(join(root, "docs/scenarios.md"), "utf8"));
  expect(rows.map(({ id }) => id).sort()).toEqual([...asked].sort());
  expect(wrongIn(rows)).toEqual([]);
});

test("a row that names what is not there is found", () => {
  const line = (defends: string, proof: string): string => `| R99 x | ${defends} | ${proof} | - |`;
  const good = '`test/tools/scenarios.test.ts` "a row that names what is not there is found"';
  const rows = parse(
    [
      line("`test/tools/scenarios.test.ts`", good),
      line("`test/tools/gone.ts`", good),
      line("", good.replace("is found", "is not found!")),
      line("", ""),
    ].join("\n"),
  );
  expect(wrongIn(rows)).toHaveLength(3);
});
