import { createHmac } from "node:crypto";
import { corrupt, createByteReader, createByteWriter, sameBytes } from "../format/bytes.ts";
import { derive } from "./secrets.ts";

/** The secrets that every wrapping and every epoch object holds: all of them as they were when it was made. */
export type Keyring = {
  /** 32 bytes. */
  readonly identity: Uint8Array;
  /** Epoch to 32 bytes. */
  readonly masters: ReadonlyMap<number, Uint8Array>;
};

/** Far more than anybody rotates; what claims more is damage. */
export const epochsMax = 1024;
export const keyringBytes = (epochs: number): number => 36 + 36 * epochs;

export function encodeKeyring(keyring: Keyring): Uint8Array {
  const epochs = epochsOf(keyring);
  const writer = createByteWriter(keyringBytes(epochs.length))
    .bytes(keyring.identity)
    .u32(epochs.length);
  for (const epoch of epochs) writer.u32(epoch).bytes(masterOf(keyring.masters, epoch));
  return writer.done();
}

export function decodeKeyring(bytes: Uint8Array, name: string): Keyring {
  const reader = createByteReader(bytes, name);
  const identity = Uint8Array.from(reader.take(32));
  const count = reader.count(reader.u32(), 36);
  if (count < 1 || count > epochsMax) throw corrupt(`${name} holds ${count} key epochs`);
  const masters = new Map<number, Uint8Array>();
  for (let row = 0; row < count; row += 1) {
    const epoch = reader.u32();
    masters.set(epoch, Uint8Array.from(reader.take(32)));
  }
  reader.end();
  if (masters.size !== count || masters.has(0)) throw corrupt(`${name} holds an epoch twice`);
  return { identity, masters };
}

export function epochsOf(keyring: Keyring): readonly number[] {
  return [...keyring.masters.keys()].sort((left, right) => left - right);
}

/**
 * Only who knows the masters of all these epochs can make it: a stolen older key cannot vouch for anything newer.
 * Undefined when one of them is not among `masters`.
 */
export function vouch(
  masters: ReadonlyMap<number, Uint8Array>,
  epochs: readonly number[],
  repositoryId: Uint8Array,
  parts: readonly Uint8Array[],
): Uint8Array | undefined {
  if (!epochs.every((epoch) => masters.has(epoch))) return undefined;
  const all = Buffer.concat(epochs.map((epoch) => masterOf(masters, epoch)));
  const mac = createHmac("sha256", derive(all, repositoryId, "holdfast/1/keys", 32));
  for (const part of parts) mac.update(part);
  return mac.digest();
}

/** The same repository's, and of one mind about every epoch that both know; at least one. */
export function isSameRepository(left: Keyring, right: Keyring): boolean {
  return (
    sameBytes(left.identity, right.identity) &&
    [...left.masters.keys()].some((epoch) => right.masters.has(epoch))
  );
}

export function conflictingEpoch(left: Keyring, right: Keyring): number | undefined {
  return epochsOf(left).find((epoch) => {
    const other = right.masters.get(epoch);
    return other !== undefined && !sameBytes(masterOf(left.masters, epoch), other);
  });
}

function masterOf(masters: ReadonlyMap<number, Uint8Array>, epoch: number): Uint8Array {
  const master = masters.get(epoch);
  if (master === undefined) throw new Error(`key epoch ${epoch} is asked for and not there`);
  return master;
}
