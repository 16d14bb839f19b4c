import type { DynamoDBDocumentClient } from "@aws-sdk/lib-dynamodb";
import type { Catalog } from "../ports/catalog.ts";
import type { Clock } from "../ports/clock.ts";
import type { RandomBytes } from "../ports/random.ts";
import { createEntities } from "./catalog/entities.ts";
import { createJobs } from "./catalog/jobs.ts";
import { createLedger } from "./catalog/ledger.ts";
import { createMovers } from "./catalog/movers.ts";
import { createPoints } from "./catalog/points.ts";
import { createTable } from "./catalog/table.ts";
import { createTasks } from "./catalog/tasks.ts";
import { createVms } from "./catalog/vms.ts";

/**
 * The catalog in one DynamoDB table (PK, SK; index GSI1 over GSI1PK, GSI1SK, all attributes projected).
 * What always holds: every invariant lives in one item and is decided by one conditional write to it; there are no
 * transactions; what is read is checked against its schema; reads by key are consistent, lists over the index may lag.
 *
 *   PK                     SK                    GSI1PK          GSI1SK
 *   PROVIDER|REPOSITORY|POLICY|MOVER  id
 *   VM#id                  VM                    VM              name#id
 *   VM#id                  POINT#id              POINT#id        POINT
 *   VM#id                  JOB#time#id           (reference to a job)
 *   JOB#id                 JOB                   JOB             time#id
 *   JOB#id                 DISK#key | LOG#… | TASK#name
 *   EXPIRED#repository     point id
 *   LEDGER#VM#id | LEDGER#RESTORE#job   entry id
 */
export function createDynamoCatalog(options: {
  readonly client: DynamoDBDocumentClient;
  readonly tableName: string;
  readonly clock: Clock;
  readonly random: RandomBytes;
}): Catalog {
  const table = createTable(options.client, options.tableName);
  const { removeProviderItem, ...entities } = createEntities(table);
  const { setHead, importVm, importHead, forgetProvider, ...vms } = createVms(table);
  const { addPoint, ...points } = createPoints(table);
  return {
    ...entities,
    ...vms,
    ...points,
    ...createJobs(table, options.clock, options.random),
    ...createTasks(table),
    ...createMovers(table),

    async removeProvider(providerId) {
      await entities.getProvider(providerId);
      await forgetProvider(providerId);
      await removeProviderItem(providerId);
    },

    async commitPoint(point, commit) {
      // The head decides between attempts. A crash between the two writes leaves a committed point that is not
      // listed yet: the stage's retry lists it, and `rebuild` does from the repository.
      await setHead(point, commit);
      await addPoint(point);
    },

    async importPoint(imported) {
      // As in a commit, what is listed is whole; the head comes last, so that it never names what is not listed.
      await importVm(imported);
      const outcome = await addPoint(imported.point);
      await importHead(imported.point);
      return outcome;
    },

    ledger: (owner) => createLedger(table, options.clock, owner),
  };
}
