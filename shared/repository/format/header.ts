import { corrupt, createByteReader, createByteWriter, sameBytes } from "./bytes.ts";

/** Every stored object begins with these 16 bytes: magic (8), format version (u16), type (u16), key epoch (u32, 0 where none). */
export const formatVersion = 1;
export const headerBytes = 16;

export const objectTypes = {
  config: 1,
  key: 2,
  "data-pack": 3,
  "metadata-pack": 4,
  "index-segment": 5,
  "disk-record": 6,
  "recovery-point": 7,
  "vm-metadata": 8,
  "transfer-checkpoint": 9,
  session: 10,
  condemned: 11,
  relocation: 12,
  damage: 13,
  verified: 14,
  "key-epoch": 15,
} as const;
export type ObjectType = keyof typeof objectTypes;

const magic = Buffer.from("HOLDFAST", "latin1");

export function encodeHeader(type: ObjectType, epoch: number): Uint8Array {
  return createByteWriter(headerBytes)
    .bytes(magic)
    .u16(formatVersion)
    .u16(objectTypes[type])
    .u32(epoch)
    .done();
}

/** The version is returned, not judged: only the config decides whether this release knows the format. */
export function decodeHeader(
  bytes: Uint8Array,
  type: ObjectType,
  name: string,
): { readonly version: number; readonly epoch: number } {
  const reader = createByteReader(bytes.subarray(0, headerBytes), name);
  if (!sameBytes(reader.take(magic.length), magic)) {
    throw corrupt(`${name} does not begin with the magic of a Holdfast object`, { key: name });
  }
  const version = reader.u16();
  const found = reader.u16();
  if (found !== objectTypes[type]) {
    throw corrupt(`${name} is of type ${found}, expected ${objectTypes[type]} (${type})`, {
      key: name,
    });
  }
  return { version, epoch: reader.u32() };
}

/** For every object but the config: within one repository all objects are of the config's version. */
export function decodeKnownHeader(
  bytes: Uint8Array,
  type: ObjectType,
  name: string,
): { readonly epoch: number } {
  const { version, epoch } = decodeHeader(bytes, type, name);
  if (version !== formatVersion) {
    throw corrupt(`${name} has format version ${version}, the repository is of ${formatVersion}`, {
      key: name,
    });
  }
  return { epoch };
}
