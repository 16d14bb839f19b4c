/** Puts or gets 1 GiB in objects of 32 MiB, eight at once, by the same store as a repository's; started by the section s3 of `npm run bench`. */
import { openObjectStore } from "@holdfast/shared/storage/open-object-store";

const objects = 32;
const atOnce = 8;
const objectBytes = 32 * 1024 ** 2;

const put = process.argv[2] === "put";
const store = await openObjectStore("s3://bench/plain");
const bytes = Buffer.alloc(objectBytes, "some other bytes ");
const run = put ? `${process.pid}-${process.hrtime.bigint()}` : await newestRun();
let next = 0;
await Promise.all(
  Array.from({ length: atOnce }, async () => {
    while (next < objects) {
      const key = `${run}/${next}`;
      next += 1;
      if (put) await store.put(key, bytes);
      else if ((await store.get(key)).length !== objectBytes) throw new Error(`${key} is cut`);
    }
  }),
);
process.exit(0);

async function newestRun(): Promise<string> {
  let found = "";
  for await (const { key } of store.list("")) found = key.slice(0, key.lastIndexOf("/"));
  return found;
}
