import type { ObjectStoreSupports } from "@holdfast/shared/ports/object-store";

/**
 * Something about a storage that its operator should know. `danger`: data can be lost or cannot be read back; no repository is made
 * there. `warning`: worth changing. `note`: good to know.
 */
export type Finding = {
  readonly id: string;
  readonly severity: "danger" | "warning" | "note";
  readonly what: string;
  /** What to do; empty where nothing needs doing. */
  readonly remedy: string;
};

/** What a storage can do, and what is odd about it. */
export type StorageReport = {
  readonly supports: ObjectStoreSupports;
  readonly findings: readonly Finding[];
};

type Words = readonly [id: string, what: string, remedy?: string];
export const danger = (...words: Words): Finding => finding("danger", words);
export const warning = (...words: Words): Finding => finding("warning", words);
export const note = (...words: Words): Finding => finding("note", words);

function finding(severity: Finding["severity"], [id, what, remedy = ""]: Words): Finding {
  return { id, severity, what, remedy };
}
