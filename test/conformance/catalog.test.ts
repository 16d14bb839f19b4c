import { createDynamoCatalog } from "@holdfast/shared/aws/catalog";
import { systemClock } from "@holdfast/shared/ports/clock";
import { systemRandom } from "@holdfast/shared/ports/random";
import { openDynamoTable } from "../helpers/dynamo-table.ts";
import { type CatalogHarness, describeCatalog } from "./catalog.ts";

const harnesses: readonly CatalogHarness[] = [
  {
    name: "DynamoDB (dynalite)",
    open: async () => {
      const table = await openDynamoTable();
      const catalog = createDynamoCatalog({ ...table, clock: systemClock, random: systemRandom });
      return { catalog, [Symbol.asyncDispose]: () => table[Symbol.asyncDispose]() };
    },
  },
];

for (const harness of harnesses) describeCatalog(harness);
