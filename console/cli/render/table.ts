import { printable } from "./format.ts";

export type Column = { readonly title: string; readonly align?: "left" | "right" };

export type Table = {
  readonly columns: readonly Column[];
  readonly rows: readonly (readonly string[])[];
  /** Said instead of an empty table, to people only: what to do next. */
  readonly empty?: string;
};

/**
 * People get aligned columns under titles. A pipe gets one line a row, tab-separated, without titles,
 * so that `cut` and `awk` see data only.
 */
export function renderTable(table: Table, options: { readonly forPeople: boolean }): string {
  const rows = table.rows.map((row) => row.map(printable));
  if (!options.forPeople) return rows.map((row) => `${row.join("\t")}\n`).join("");
  if (rows.length === 0) return table.empty === undefined ? "" : `${table.empty}\n`;
  const lines = [table.columns.map((column) => column.title), ...rows];
  const widths = table.columns.map((_, index) =>
    Math.max(...lines.map((line) => [...(line[index] ?? "")].length)),
  );
  return lines
    .map((line) => {
      const cells = table.columns.map((column, index) =>
        pad(line[index] ?? "", widths[index] ?? 0, column.align ?? "left"),
      );
      return `${cells.join("  ").trimEnd()}\n`;
    })
    .join("");
}

/** `title  value` lines, for one thing shown alone; in a pipe tab-separated. */
export function renderFields(
  fields: readonly (readonly [title: string, value: string])[],
  options: { readonly forPeople: boolean },
): string {
  const width = Math.max(0, ...fields.map(([title]) => title.length));
  return fields
    .map(([title, value]) =>
      options.forPeople
        ? `${title.padEnd(width)}  ${printable(value)}\n`
        : `${title}\t${printable(value)}\n`,
    )
    .join("");
}

function pad(text: string, width: number, align: "left" | "right"): string {
  const missing = " ".repeat(Math.max(0, width - [...text].length));
  return align === "right" ? missing + text : text + missing;
}
