import type { Ledger, LedgerEntry } from "@holdfast/shared/ports/ledger";

/** A ledger in memory. `afterEach` hears of each change, so that a test can die right after it. */
export function createMemoryLedger(
  afterEach: (change: { readonly kind: string; readonly entryId: string }) => void = () =>
    undefined,
): Ledger & { readonly entries: ReadonlyMap<string, LedgerEntry> } {
  const entries = new Map<string, LedgerEntry>();
  return {
    entries,
    async intend(entry) {
      if (!entries.has(entry.id)) entries.set(entry.id, structuredClone(entry));
      afterEach({ kind: "intend", entryId: entry.id });
    },
    async keep(entryId) {
      const entry = entries.get(entryId);
      if (entry !== undefined) entries.set(entryId, { ...entry, kept: true });
      afterEach({ kind: "keep", entryId });
    },
    async settle(entryId) {
      entries.delete(entryId);
      afterEach({ kind: "settle", entryId });
    },
    async list() {
      return [...entries.values()];
    },
  };
}
