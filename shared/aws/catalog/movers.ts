import { Mover } from "../../contracts/catalog-items.ts";
import type { Catalog } from "../../ports/catalog.ts";
import { parseItem } from "./entities.ts";
import type { Table } from "./table.ts";

type Movers = Pick<Catalog, "recordMover" | "listMovers" | "forgetMover">;

/** Movers that say that they are there: few, each one item, all in one partition. */
export function createMovers(table: Table): Movers {
  const key = (moverId: string) => ({ PK: "MOVER", SK: moverId });
  return {
    async recordMover(mover) {
      await table.put({ ...mover, ...key(mover.moverId) });
    },
    async listMovers() {
      const movers: Mover[] = [];
      for await (const item of table.query({ partition: "MOVER" })) {
        movers.push(parseItem(Mover, item, `mover ${String(item["SK"])}`));
      }
      return movers;
    },
    async forgetMover(moverId) {
      await table.remove(key(moverId));
    },
  };
}
