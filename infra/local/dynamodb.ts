import { once } from "node:events";
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import type { IncomingMessage, ServerResponse } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import dynalite from "dynalite";

/**
 * DynamoDB by dynalite on LevelDB. What it lacks against the real one: transactions, PartiQL, streams, backups,
 * global tables, expiry by TTL (only DescribeTimeToLive answers), throttling; and LevelDB writes reach the operating
 * system, not the disk, before they are acknowledged: they outlive a kill -9 of this process, not a power cut.
 */
export type DynamoDb = {
  /** The request's body must not have been read. */
  handle(message: IncomingMessage, response: ServerResponse): void;
  close(): Promise<void>;
};

export async function openDynamoDb(folder: string): Promise<DynamoDb> {
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  const server = dynalite({ path: folder, createTableMs: 0, deleteTableMs: 0, updateTableMs: 0 });
  // dynalite closes its database only if it was listening: on a socket that nobody can find any more.
  const socketFolder = mkdtempSync(join(tmpdir(), "holdfast-dynamodb-"));
  server.listen(join(socketFolder, "s"));
  await once(server, "listening");
  rmSync(socketFolder, { recursive: true, force: true });
  return {
    handle: (message, response) => {
      server.emit("request", message, response);
    },
    close: async () => {
      await new Promise<void>((resolve, reject) => {
        server.close((error) => (error == null ? resolve() : reject(error)));
      });
    },
  };
}
