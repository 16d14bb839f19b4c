import { readFile } from "node:fs/promises";
import { Failure } from "@holdfast/shared/domain/failure";
import type { Context } from "./context.ts";

/** The text of a file without its last line ending; an empty or unreadable file is `input.invalid`. */
export async function readSecretFile(option: string, path: string): Promise<string> {
  let text: string;
  try {
    text = await readFile(path, "utf8");
  } catch (error) {
    throw new Failure("input.invalid", {
      message: `${option}: ${path} cannot be read`,
      cause: error,
    });
  }
  const secret = text.replace(/\r?\n$/, "");
  if (secret === "") throw new Failure("input.invalid", { message: `${option}: ${path} is empty` });
  return secret;
}

/**
 * The repository's passphrase: --passphrase-file, HOLDFAST_PASSPHRASE, the file that `fallbackFile` names
 * (the local profile's), or a question without echo; in this order.
 */
export async function readPassphrase(
  context: Context,
  options: {
    readonly file: string | undefined;
    readonly fallbackFile?: string | undefined;
    /** Asked twice: a typing error in a new passphrase would lock its owner out. */
    readonly isNew?: boolean;
  },
): Promise<string> {
  if (options.file !== undefined) return await readSecretFile("--passphrase-file", options.file);
  const fromEnvironment = context.environment["HOLDFAST_PASSPHRASE"];
  if (fromEnvironment !== undefined && fromEnvironment !== "") return fromEnvironment;
  if (options.fallbackFile !== undefined) {
    return await readSecretFile("the profile's passphrase file", options.fallbackFile);
  }
  const instead = "--passphrase-file or HOLDFAST_PASSPHRASE";
  const passphrase = await context.prompt.secret("Passphrase of the repository", instead);
  if (passphrase === "") throw new Failure("input.invalid", { message: "the passphrase is empty" });
  if (options.isNew && (await context.prompt.secret("Once more", instead)) !== passphrase) {
    throw new Failure("input.invalid", { message: "the two passphrases differ" });
  }
  return passphrase;
}
