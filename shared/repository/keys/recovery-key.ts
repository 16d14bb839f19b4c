import { entropyToMnemonic, mnemonicToEntropy } from "@scure/bip39";
import { wordlist } from "@scure/bip39/wordlists/english.js";
import { Failure } from "../../domain/failure.ts";
import type { RandomBytes } from "../../ports/random.ts";

/** 256 random bits as 24 words of BIP 39's English list, 8 bits of checksum among them: to be printed once and kept on paper. */
export type RecoveryKey = { readonly words: string };

const wordCount = 24;
const known = new Set(wordlist);

export function newRecoveryKey(random: RandomBytes): RecoveryKey {
  return { words: entropyToMnemonic(Uint8Array.from(random(32)), wordlist) };
}

/**
 * The key's 32 bytes, or undefined when the text is not meant as a recovery key: it has another number of words, or most are not
 * in the list. Fails with `input.invalid`, naming the word, when it was mistyped; the words themselves are not quoted.
 */
export function parseRecoveryKey(text: string): Uint8Array | undefined {
  const words = text.normalize("NFKD").toLowerCase().trim().split(/\s+/);
  if (words.length !== wordCount) return undefined;
  const unknown = words.flatMap((word, at) => (known.has(word) ? [] : [at + 1]));
  if (unknown.length > wordCount / 2) return undefined;
  if (unknown.length > 0) {
    throw new Failure("input.invalid", {
      message: `the recovery key has words that are not in its list, counted from 1: ${unknown.join(", ")}`,
    });
  }
  try {
    return mnemonicToEntropy(words.join(" "), wordlist);
  } catch {
    // Without the cause: its message could quote words.
    throw new Failure("input.invalid", {
      message: "the recovery key's checksum is wrong: a word was exchanged or words were swapped",
    });
  }
}
