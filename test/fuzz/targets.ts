import { createHash } from "node:crypto";
import { zstdCompressSync } from "node:zlib";
import type { FailureCode } from "@holdfast/shared/domain/failure";
import { systemClock as clock } from "@holdfast/shared/ports/clock";
import { systemRandom as random } from "@holdfast/shared/ports/random";
import { openRecord } from "@holdfast/shared/repository/chunk/sealed-chunk";
import { decodeDiskRecord } from "@holdfast/shared/repository/extent-map/disk-record";
import { decodeLeaf } from "@holdfast/shared/repository/extent-map/leaf";
import { inflate } from "@holdfast/shared/repository/format/compression";
import { decodeConfig } from "@holdfast/shared/repository/format/config";
import type { SealedType } from "@holdfast/shared/repository/format/sealed-object";
import { decodeIndexSegment } from "@holdfast/shared/repository/index/index-segment";
import { decodeIndexShard, encodeIndexShard } from "@holdfast/shared/repository/index/index-shard";
import { decodeEpoch } from "@holdfast/shared/repository/keys/epoch";
import { decodeWrapping } from "@holdfast/shared/repository/keys/wrapping";
import { decodeDamage } from "@holdfast/shared/repository/pack/damage";
import {
  openPackFooter,
  packHeadBytes,
  readPackFooter,
} from "@holdfast/shared/repository/pack/pack";
import { decodeRelocation } from "@holdfast/shared/repository/pack/relocations";
import { decodeRoot } from "@holdfast/shared/repository/recovery-point/point";
import { openRepository } from "@holdfast/shared/repository/repository";
import { decodeCondemned, encodeCondemned } from "@holdfast/shared/repository/session/condemned";
import { decodeEnd, decodeStart } from "@holdfast/shared/repository/session/session-record";
import { parseQcow2Header } from "../../mover/transport/qcow2-header.ts";
import { readGolden, storeOf } from "../golden/golden-repository.ts";

/** Something that reads bytes from outside, good examples of these, and how it may refuse. */
export type Target = {
  readonly name: string;
  readonly examples: readonly Uint8Array[];
  readonly decode: (bytes: Uint8Array) => unknown;
  readonly refusals: readonly FailureCode[];
};

/** The examples are what the golden repository holds: sealed, and, one layer in, opened. */
export async function fuzzTargets(): Promise<readonly Target[]> {
  const golden = readGolden("format-1");
  const store = await storeOf(golden);
  const { passphrase } = golden;
  const repository = await openRepository({ store, passphrase, clock, random });
  const { secrets, objects } = repository;
  const names = Object.keys(golden.objects);
  const below = (prefix: string): readonly string[] => {
    const found = names.filter((name) => name.startsWith(prefix));
    if (found.length === 0) throw new Error(`the golden repository has nothing below ${prefix}`);
    return found;
  };
  const stored = (name: string): Uint8Array => Buffer.from(golden.objects[name] ?? "", "base64");
  const damage: readonly FailureCode[] = ["object.corrupt", "repository.epoch-unknown"];

  const plain = (
    name: string,
    examples: readonly Uint8Array[],
    decode: Target["decode"],
    refusals: readonly FailureCode[] = ["object.corrupt"],
  ): Target => ({ name, examples, decode, refusals });
  /** Objects of one type: as stored, and their contents, which only who has a key can have changed. */
  const sealed = (
    prefix: string,
    type: SealedType,
    decode: (bytes: Uint8Array, name: string) => unknown,
  ): readonly Target[] =>
    below(prefix).flatMap((name) => [
      plain(`sealed ${type}`, [stored(name)], (bytes) => objects.open(name, type, bytes), damage),
      plain(type, [objects.open(name, type, stored(name))], (bytes) => decode(bytes, name), [
        "object.corrupt",
        "input.invalid",
      ]),
    ]);
  /** The checksum is for accidents; who changes on purpose makes it right, and then must meet the next check. */
  const checksummed = (name: string, decode: Target["decode"]): readonly Target[] => {
    const bytes = stored(name);
    return [
      plain(name.slice(0, 13), [bytes], decode),
      plain(`${name.slice(0, 13)}, checksum right`, [bytes.subarray(0, -32)], (body) =>
        decode(Buffer.concat([body, createHash("sha256").update(body).digest()])),
      ),
    ];
  };

  const packs = below("packs/").flatMap((name) => {
    const bytes = stored(name);
    const packId = Buffer.from(name.slice(-32), "hex");
    const kind = bytes[10] === 3 ? ("data-pack" as const) : ("metadata-pack" as const);
    return [
      plain(
        "pack",
        [bytes],
        (some) => readPackFooter({ secrets, kind, packId, bytes: some }),
        damage,
      ),
      plain(
        "pack, its ends",
        [bytes],
        (some) => {
          const head = some.subarray(0, packHeadBytes);
          return openPackFooter({ secrets, packId, head, tail: some, sizeBytes: some.length });
        },
        damage,
      ),
    ];
  });

  const condemnedList = encodeCondemned({
    madeAt: 1,
    packs: ["00".repeat(16)],
    compacting: ["11".repeat(16)],
    roots: below("points/").map(String),
    objects: below("disks/").map(String),
  });
  const place = { bits: 0, prefix: 0 };
  const shard = encodeIndexShard({
    packs: [{ packId: new Uint8Array(16), epoch: 1 }],
    count: 2,
    ids: Uint8Array.from({ length: 32 }, (_, at) => at),
    packNumbers: Uint32Array.of(0, 0),
    offsets: Uint32Array.of(64, 128),
    storedLengths: Uint32Array.of(64, 64),
  });

  return [
    plain("config", [stored("config")], decodeConfig, [
      "object.corrupt",
      "repository.format-unknown",
    ]),
    ...below("keys/wrapping-").flatMap((name) =>
      checksummed(name, (bytes) => decodeWrapping(bytes, name)),
    ),
    ...below("keys/epoch-").flatMap((name) =>
      checksummed(name, (bytes) => decodeEpoch(bytes, name)),
    ),
    ...packs,
    ...leaves(),
    ...sealed("disks/", "disk-record", decodeDiskRecord),
    ...sealed("points/", "recovery-point", decodeRoot),
    ...sealed("relocations/", "relocation", decodeRelocation),
    ...sealed("index/", "index-segment", decodeIndexSegment),
    ...sessions(),
    plain("condemned list", [condemnedList], decodeCondemned),
    plain("index shard", [shard], (bytes) => decodeIndexShard(bytes, place)),
    plain("damage record", [Buffer.from('{"v":1}')], (bytes) => decodeDamage(bytes, "damage/x")),
    plain("zstd", [bomb()], (bytes) => inflate(bytes, 1000, "a record")),
    plain("qcow2 header", qcow2Headers(), (bytes) => parseQcow2Header(Buffer.from(bytes), "disk"), [
      "input.invalid",
      "unsupported",
    ]),
  ];

  function leaves(): readonly Target[] {
    return below("packs/").flatMap((name) => {
      const bytes = stored(name);
      if (bytes[10] !== 4) return [];
      const packId = Buffer.from(name.slice(-32), "hex");
      const { packKey, records } = readPackFooter({
        secrets,
        kind: "metadata-pack",
        packId,
        bytes,
      });
      const open = (at: number): Uint8Array => {
        const offset = records.offsets[at] ?? 0;
        const record = bytes.subarray(offset, offset + (records.storedLengths[at] ?? 0));
        const { repositoryId } = secrets;
        const place = { repositoryId, packId, packKey, offset };
        return openRecord(place, record, records.rawLengths[at] ?? 0);
      };
      const summary = open(0);
      const entries = open(1);
      return [
        plain("leaf summary", [summary], (some) => decodeLeaf({ summary: some, entries })),
        plain("leaf entries", [entries], (some) => decodeLeaf({ summary, entries: some })),
      ];
    });
  }

  function sessions(): readonly Target[] {
    return below("sessions/").flatMap((name) => {
      const isStart = name.includes("/start-");
      if (!isStart && !/\/end-(?!none)/.test(name)) return [];
      return [
        plain(
          isStart ? "session's start" : "session's end",
          [objects.open(name, "session", stored(name))],
          (bytes) => (isStart ? decodeStart(bytes, name) : decodeEnd(bytes, name)),
        ),
      ];
    });
  }
}

/** zstd frame that inflates to 64 MiB of zeros. */
function bomb(): Uint8Array {
  return zstdCompressSync(Buffer.alloc(64 * 1024 * 1024));
}

function qcow2Headers(): readonly Uint8Array[] {
  const header = Buffer.alloc(512);
  header.writeUInt32BE(0x514649fb, 0);
  header.writeUInt32BE(3, 4);
  header.writeUInt32BE(16, 20);
  header.writeBigUInt64BE(1n << 30n, 24);
  header.writeUInt32BE(104, 100);
  // A feature name table, then the end.
  header.writeUInt32BE(0x6803f857, 104);
  header.writeUInt32BE(96, 108);
  const second = Buffer.from(header);
  second.writeUInt32BE(2, 4);
  return [header, second];
}
