import type { RandomBytes } from "../../ports/random.ts";
import { createKeyedHash } from "../chunk/keyed-hash.ts";
import { sameBytes, toHex } from "../format/bytes.ts";
import { identityKey, type RepositorySecrets } from "../keys/secrets.ts";

/**
 * Names that say who made them. Much is decided from listings alone: what is a point, who still writes, what may not be used. Such a name ends
 * in 8 random bytes and 16 of a keyed hash over all before, in hexadecimal, so that nobody without the repository's keys can plant one, and
 * no damage to an object's bytes can make it seem planted.
 */
export type SignedNames = {
  /** `stem` and its tag; never the same twice. */
  readonly sign: (stem: string) => string;
  /** The name without its tag; undefined for a planted one. */
  readonly stemOf: (name: string) => string | undefined;
};

const randomBytes = 8;
const macBytes = 16;
const tagLength = 2 * (randomBytes + macBytes);

export function createSignedNames(secrets: RepositorySecrets, random: RandomBytes): SignedNames {
  const hash = createKeyedHash(identityKey(secrets, "name"));
  const mac = (text: string): Uint8Array =>
    hash.hash(Buffer.from(text, "utf8")).subarray(0, macBytes);
  return {
    sign: (stem) => {
      const name = `${stem}${toHex(random(randomBytes))}`;
      return `${name}${toHex(mac(name))}`;
    },
    stemOf: (name) => {
      if (name.length <= tagLength || !/^[0-9a-f]+$/.test(name.slice(-tagLength))) return undefined;
      const signed = name.slice(0, -2 * macBytes);
      const claimed = Buffer.from(name.slice(-2 * macBytes), "hex");
      return sameBytes(mac(signed), claimed) ? name.slice(0, -tagLength) : undefined;
    },
  };
}
