import type { DynamoDBDocumentClient } from "@aws-sdk/lib-dynamodb";
import { createDynamoCatalog } from "@holdfast/shared/aws/catalog";
import { systemClock } from "@holdfast/shared/ports/clock";
import { systemRandom } from "@holdfast/shared/ports/random";
import { openDynamoTable } from "../helpers/dynamo-table.ts";
import { type CatalogHarness, describeCatalog } from "./catalog.ts";

const harnesses: readonly CatalogHarness[] = [
  { name: "DynamoDB (dynalite)", open: () => openCatalog(() => undefined) },
  { name: "DynamoDB, every write's first answer lost", open: () => openCatalog(loseFirstAnswers) },
];

for (const harness of harnesses) describeCatalog(harness);

async function openCatalog(prepare: (client: DynamoDBDocumentClient) => void) {
  const table = await openDynamoTable();
  prepare(table.client);
  const catalog = createDynamoCatalog({ ...table, clock: systemClock, random: systemRandom });
  return { catalog, [Symbol.asyncDispose]: () => table[Symbol.asyncDispose]() };
}

const writes = new Set(["PutItemCommand", "UpdateItemCommand", "DeleteItemCommand"]);

/** Each write is applied, its answer lost, and sent again, as the SDK does after a cut connection. */
function loseFirstAnswers(client: DynamoDBDocumentClient): void {
  client.middlewareStack.add(
    (next, context) => async (request) => {
      if (writes.has(String(context["commandName"]))) await next(request);
      return next(request);
    },
    { step: "finalizeRequest", name: "loseFirstAnswers", priority: "low" },
  );
}
