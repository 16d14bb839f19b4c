import { z } from "zod";
import type { Clock } from "../../ports/clock.ts";
import type { Ledger, LedgerEntry } from "../../ports/ledger.ts";
import { notFound, parseItem } from "./entities.ts";
import { readJson, storeJson } from "./stored-json.ts";
import { absent, type Item, present, type Table } from "./table.ts";

export type LedgerOwner = { readonly vmId: string } | { readonly restoreJobId: string };

const StoredEntry = z.strictObject({
  id: z.string(),
  jobId: z.string(),
  kind: z.string(),
  name: z.string(),
  details: z.record(z.string(), z.unknown()),
  kept: z.boolean(),
});

/** One item an entry, in the owner's partition, keyed by the entry's id. */
export function createLedger(table: Table, clock: Clock, owner: LedgerOwner): Ledger {
  const partition =
    "vmId" in owner ? `LEDGER#VM#${owner.vmId}` : `LEDGER#RESTORE#${owner.restoreJobId}`;
  const keyOf = (entryId: string) => ({ PK: partition, SK: entryId });
  let intended = 0;

  return {
    async intend(entry) {
      intended += 1;
      const order = `${new Date(clock.now()).toISOString()}#${String(intended).padStart(9, "0")}`;
      const details = storeJson(`ledger entry ${entry.id}`, entry.details);
      await table.put({ ...entry, details, order, ...keyOf(entry.id) }, absent);
    },
    async keep(entryId) {
      const after = await table.update(keyOf(entryId), { set: { kept: true }, ...present });
      if (after === undefined) throw notFound("ledger entry", entryId);
    },
    async settle(entryId) {
      await table.remove(keyOf(entryId));
    },
    async list() {
      const items: Item[] = [];
      for await (const item of table.query({ partition })) items.push(item);
      items.sort((a, b) => (String(a["order"]) < String(b["order"]) ? -1 : 1));
      return items.map(toEntry);
    },
  };
}

function toEntry({ order: _order, details, ...fields }: Item): LedgerEntry {
  return parseItem(
    StoredEntry,
    { ...fields, details: readJson(details) },
    `ledger entry ${String(fields["id"])}`,
  );
}
