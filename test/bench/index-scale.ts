/**
 * What the chunk index needs at scale: `npm run bench:index` (CHUNKS=50000000). Prints memory per chunk and time per look, for the
 * full index and for the sparse one that takes its place when memory does not suffice.
 */
import { createChunkIndex } from "@holdfast/shared/repository/index/chunk-index";

const chunks = Number(process.env["CHUNKS"] ?? 50_000_000);
const chunksPerPack = 256;
const sparseBytes = 2 ** 28;

function mix(value: number): number {
  let word = Math.imul(value ^ (value >>> 16), 0x21f0aaad);
  word = Math.imul(word ^ (word >>> 15), 0x735a2d97);
  return (word ^ (word >>> 15)) >>> 0;
}

const id = new Uint8Array(32);
const idWords = new Uint32Array(id.buffer);

/** The same bytes for the same number, and no pattern that a table could feel. */
function fillId(chunk: number): Uint8Array {
  for (let word = 0; word < 4; word += 1) idWords[word] = mix(chunk + mix(word + 0x9e3779b9));
  return id;
}

const packs = Array.from({ length: Math.ceil(chunks / chunksPerPack) }, (_, number) => {
  const packId = Buffer.alloc(16);
  for (let word = 0; word < 4; word += 1)
    packId.writeUInt32LE(mix(number * 4 + word + 7), word * 4);
  return { packId, epoch: 1 };
});

function report(what: string, value: string): void {
  process.stdout.write(`${what.padEnd(52)} ${value}\n`);
}

function timed<Result>(work: () => Result): { readonly result: Result; readonly seconds: number } {
  const from = performance.now();
  const result = work();
  return { result, seconds: (performance.now() - from) / 1000 };
}

function fill(index: ReturnType<typeof createChunkIndex>): void {
  for (let chunk = 0; chunk < chunks; chunk += 1) {
    const pack = packs[Math.floor(chunk / chunksPerPack)] ?? { packId: Buffer.alloc(16), epoch: 1 };
    index.addOne(pack, fillId(chunk), 64 + (chunk % chunksPerPack) * 100_000, 60_000);
  }
}

const looks = 5_000_000;
const rssBefore = process.memoryUsage().rss;
const full = createChunkIndex({ chunksExpected: chunks, bytesMax: 2 ** 32 });
const filling = timed(() => fill(full));
const bytes = full.shared.slots.byteLength + full.shared.packs.byteLength;
report("chunks", full.count().toLocaleString("en"));
report("full index: bytes a chunk, packs included", (bytes / full.count()).toFixed(2));
report(
  "full index: resident bytes a chunk, all of the process",
  ((process.memoryUsage().rss - rssBefore) / full.count()).toFixed(2),
);
report("full index: added a second", Math.round(chunks / filling.seconds).toLocaleString("en"));
const hits = timed(() => {
  let found = 0;
  for (let look = 0; look < looks; look += 1) {
    if (full.find(fillId((look * 7919) % chunks)) !== undefined) found += 1;
  }
  return found;
});
if (hits.result !== looks) throw new Error(`${looks - hits.result} chunks were not found`);
report("full index: a look that finds, ns", ((hits.seconds / looks) * 1e9).toFixed(0));
const misses = timed(() => {
  let found = 0;
  for (let look = 0; look < looks; look += 1) {
    if (full.find(fillId(chunks + look)) !== undefined) found += 1;
  }
  return found;
});
if (misses.result !== 0) throw new Error(`${misses.result} chunks were found that are not there`);
report("full index: a look that does not, ns", ((misses.seconds / looks) * 1e9).toFixed(0));

const sparse = createChunkIndex({ chunksExpected: chunks, bytesMax: sparseBytes });
fill(sparse);
sparse.wanted();
report(`sparse index of ${sparseBytes / 2 ** 20} MiB: one hook in`, String(2 ** sparse.hookBits));
// A disk that was stored before comes again, pack by pack; what a hook asks for is there when the next leaf comes.
const again = 2000;
const chunksPerLeaf = chunksPerPack * 2;
let known = 0;
let loads = 0;
for (let leaf = 0; leaf < (again * chunksPerPack) / chunksPerLeaf; leaf += 1) {
  for (let at = 0; at < chunksPerLeaf; at += 1) {
    if (sparse.find(fillId(leaf * chunksPerLeaf + at)) !== undefined) known += 1;
    if (at % 32 !== 31) continue;
    for (const pack of sparse.wanted()) {
      const number = packs.findIndex(({ packId }) => Buffer.compare(packId, pack.packId) === 0);
      const ids = new Uint8Array(chunksPerPack * 32);
      for (let row = 0; row < chunksPerPack; row += 1) {
        ids.set(fillId(number * chunksPerPack + row), row * 32);
      }
      const column = new Uint32Array(chunksPerPack).fill(60_000);
      sparse.addNeighbours(pack, {
        count: chunksPerPack,
        ids,
        offsets: column,
        storedLengths: column,
        kinds: new Uint8Array(chunksPerPack),
      });
      loads += 1;
    }
  }
}
report(
  "sparse index: share of old chunks found again",
  `${((100 * known) / (again * chunksPerPack)).toFixed(1)} %`,
);
report("sparse index: footers loaded a pack of old chunks", (loads / again).toFixed(2));
